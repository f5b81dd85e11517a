package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/clinikapi/eventflow/dispatcher/audit"
)

// nurse is whoever has a token, and may do all but replay.
type nurse struct{ userTable }

func (n *nurse) Identify(_ context.Context, authorization, _ string, access Access) (*authenticationv1.UserInfo, error) {
	if authorization == "" {
		return nil, ErrUnauthenticated
	}
	user := &authenticationv1.UserInfo{Username: "nurse"}
	if access.Verb == "update" {
		return user, &ForbiddenError{User: "nurse", Access: access}
	}
	return user, nil
}

// TestAudit: what each level has, and that no record has anything of a payload.
func TestAudit(t *testing.T) {
	t.Parallel()
	const marker = "secret-marker"
	for level, want := range map[audit.Level][]string{
		audit.Writes: {"replay nurse 403", "cancel nurse 403"},
		audit.Reads:  {"list nurse 400", "get nurse 404", "replay nurse 403", "cancel nurse 403"},
		audit.All:    {"publish nurse 202", "publish nurse 400", "list nurse 400", "get nurse 404", "replay nurse 403", "cancel nurse 403"},
	} {
		name := filepath.Join(t.TempDir(), "audit")
		log, err := audit.Open(audit.Options{Level: level, File: name})
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t, func(o *Options) { o.Audit, o.Authorizer = log, &nurse{} })
		send := func(method, path, body, token string) {
			r := httptest.NewRequestWithContext(t.Context(), method, "http://d/v1/namespaces/clinic-a/"+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			if token != "" {
				r.Header.Set("Authorization", token)
			}
			f.ServeHTTP(httptest.NewRecorder(), r)
		}
		const token = "Bearer " + marker
		send(http.MethodPost, "events", `{"id":"`+marker+`","type":"patient.created","data":{"resourceType":"patient","resourceId":"`+marker+`","x":"`+marker+`"}}`, token)
		send(http.MethodPost, "events", `{"`+marker+`":1}`, token)
		send(http.MethodGet, "deliveries?eventId="+marker, "", token)
		send(http.MethodGet, "deliveries/dlv_00000000000000000000000000", "", token)
		send(http.MethodPost, "deliveries/dlv_1/replay", "", token)
		send(http.MethodPost, "deliveries/dlv_1/cancel", "", token)
		send(http.MethodGet, "deliveries", "", "") // who does not say who they are did nothing
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(marker)) {
			t.Errorf("level %d: a record has something of a payload or a token:\n%s", level, text)
		}
		if _, err := audit.Verify(bytes.NewReader(text)); err != nil {
			t.Errorf("level %d: %v", level, err)
		}
		var got []string
		for line := range bytes.Lines(text) {
			var record struct {
				Action, User, Namespace, Source string
				Status                          int
			}
			if err := json.Unmarshal(line, &record); err != nil {
				t.Fatal(err)
			}
			if record.Action == "start" || record.Action == "stop" { // the trail's own
				continue
			}
			got = append(got, fmt.Sprint(record.Action, " ", record.User, " ", record.Status))
			if record.Namespace != "clinic-a" || record.Source == "" {
				t.Errorf("a record without a place: %s", line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("level %d: %q, want %q", level, got, want)
		}
	}
}

// BenchmarkAuditedPublish is a publish without and with a trail: Reads is the default in a cluster.
func BenchmarkAuditedPublish(b *testing.B) {
	for _, level := range []audit.Level{audit.None, audit.Reads, audit.All} {
		b.Run(fmt.Sprint("level ", level), func(b *testing.B) {
			log, err := audit.Open(audit.Options{Level: level, File: filepath.Join(b.TempDir(), "audit")})
			if err != nil {
				b.Fatal(err)
			}
			f := newFixture(b, func(o *Options) { o.Audit, o.Authorizer = log, &nurse{} })
			for i := 0; b.Loop(); i++ {
				body := fmt.Sprintf(`{"id":"e-%d","type":"lab.created","data":{"resourceType":"lab","resourceId":"b"}}`, i)
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://d/v1/namespaces/clinic-z/events", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer x")
				w := httptest.NewRecorder()
				if f.ServeHTTP(w, r); w.Code != http.StatusAccepted {
					b.Fatal(w.Body.String())
				}
			}
			b.StopTimer()
			if err := log.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
