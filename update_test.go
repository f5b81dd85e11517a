package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// nextMigration is what a next release may add to the schema, while this one goes on working.
const nextMigration = `
ALTER TABLE eventflow.pending ADD COLUMN next_priority integer NOT NULL DEFAULT 0;
ALTER TABLE eventflow.members ADD COLUMN next_zone text;
ALTER TABLE eventflow.leases ADD COLUMN next_zone text;
CREATE TABLE eventflow.next_release (id integer PRIMARY KEY, note text);
CREATE INDEX pending_next ON eventflow.pending (next_priority) WHERE next_priority <> 0;
`

// nextBuild builds the program as its next release will be: with one migration more, and another version. It returns
// the program's path and the number of its schema.
func nextBuild(t *testing.T) (program string, schema int) {
	t.Helper()
	dir := t.TempDir()
	have, err := filepath.Glob("dispatcher/store/postgres/schema/*.sql")
	if err != nil || len(have) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	schema = len(have) + 1
	added, err := filepath.Abs(fmt.Sprintf("dispatcher/store/postgres/schema/%04d_next.sql", schema))
	if err != nil {
		t.Fatal(err)
	}
	migration, overlay := filepath.Join(dir, "next.sql"), filepath.Join(dir, "overlay.json")
	files, err := json.Marshal(map[string]any{"Replace": map[string]string{added: migration}})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{migration: nextMigration, overlay: string(files)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "eventflow")
	arguments := []string{"build", "-buildvcs=false", "-overlay", overlay, "-ldflags", "-X main.version=v99.0.0", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		arguments = append(arguments, "-race") // as the tests, so that little is compiled anew
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(arguments, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("build the next release: %v\n%s", err, out)
	}
	return program, schema
}

// TestRollingUpdate replaces every dispatcher under load by one of the next release, and then by one of this release
// again: no publish fails, and no attempt is made twice.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	next, schema := nextBuild(t)
	const this = "eventflow"
	if one, other := versionOf(t, this), versionOf(t, next); one == other || other != "eventflow v99.0.0" {
		t.Fatalf("the builds are %q and %q", one, other)
	}
	f.endpoint.answers(firstAttemptsFail)
	load := f.traffic(8)
	load.flows(100)
	f.checkSchema(schema - 1)
	for _, program := range []string{next, this} {
		f.program = program
		for range 2 {
			f.replaceOne(load)
			f.checkSchema(schema)
		}
	}
	load.audit()
	if refused, failed := len(load.refusals()), load.failed.Load(); refused > 0 || failed > 0 {
		t.Errorf("%d publishes were refused, %d had no answer", refused, failed)
	}
	if n := load.repeated(); n > 0 {
		t.Errorf("%d attempts were made twice", n)
	}
	if n := len(load.arrivals()); n != load.count() {
		t.Errorf("%d events arrived of %d", n, load.count())
	}
}

// firstAttemptsFail answers 503 to some events' first attempts, so that there is always something to be attempted
// again, and takes its time, so that there is always something in flight.
func firstAttemptsFail(w http.ResponseWriter, r *http.Request) {
	<-time.After(20 * time.Millisecond)
	if r.Header.Get("X-Clinik-Attempt") == "1" && strings.HasSuffix(r.Header.Get("Webhook-Id"), "0") {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// replaceOne replaces the dispatcher that is there for the longest, as a Deployment with maxUnavailable 0 does: the new
// one is ready before the old one is told to end, and clients learn of that a little later.
func (f *fleet) replaceOne(load *traffic) {
	f.Helper()
	old := f.pick(0)
	f.start()
	load.flows(100) // both work
	if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		f.Fatal(err)
	}
	load.flows(5)
	f.forget(old)
	select {
	case <-old.ended:
	case <-time.After(patience):
		f.Fatal("it does not end")
	}
	if old.err != nil {
		f.Errorf("it ended with %v", old.err)
	}
	load.goesOn()
}

// versionOf is what a program says of itself.
func versionOf(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// checkSchema compares the number of the database's schema.
func (f *fleet) checkSchema(want int) {
	f.Helper()
	conn, err := pgx.Connect(f.Context(), f.database.URL("postgres"))
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = conn.Close(f.Context()) }()
	var got int
	if err := conn.QueryRow(f.Context(), "SELECT version FROM eventflow.meta").Scan(&got); err != nil || got != want {
		f.Errorf("the schema is %d, %v; want %d", got, err, want)
	}
}
