package postgres_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// server is what the tests share that do not harm theirs.
var server *postgrestest.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	server, err = postgrestest.Start(postgrestest.Options{Settings: map[string]string{
		"shared_preload_libraries": "'pg_stat_statements'", "autovacuum_naptime": "5s",
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, shared)
}

var schemas atomic.Int64

// newSchema is the name of one that no other test uses.
func newSchema() string { return fmt.Sprintf("test_%d", schemas.Add(1)) }

// fillVolume makes the server answer as it does when a volume is full, to what accepts events.
const fillVolume = `
CREATE FUNCTION eventflow.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON eventflow.acceptors FOR EACH STATEMENT EXECUTE FUNCTION eventflow.refuse()`

// shared keeps stores in schemas of one database.
func shared(t testing.TB, settings storetest.Settings) storetest.Place {
	schema := newSchema()
	execute := func(statement string) {
		t.Helper()
		if err := server.Exec(t.Context(), "postgres", strings.ReplaceAll(statement, "eventflow", schema)); err != nil {
			t.Fatal(err)
		}
	}
	return storetest.Place{
		Shared: true,
		Open: func() (store.Store, error) {
			return postgres.Open(t.Context(), postgres.Options{
				URL: server.URL("postgres") + "&pool_max_conns=4", Schema: schema, Now: settings.Now,
				Retention: postgres.Retention{Delivered: settings.Delivered, Failed: settings.Failed}, Registerer: settings.Registerer,
			})
		},
		Measure: func(s store.Store) error { return s.(*postgres.Store).Measure() },
		Fill: func(s store.Store, full bool) {
			if full {
				execute(fillVolume)
			} else {
				execute("DROP TRIGGER no_space ON eventflow.acceptors")
			}
			s.(*postgres.Store).Ping()
		},
		Expire: func(s store.Store) error { return s.(*postgres.Store).Expire(context.Background(), settings.Now()) },
	}
}
