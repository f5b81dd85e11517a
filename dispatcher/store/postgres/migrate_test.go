package postgres_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

const (
	// unmigrated is a schema as it is before the first migration.
	unmigrated = `CREATE SCHEMA @;
CREATE TABLE @.meta (id integer PRIMARY KEY, version integer NOT NULL, oldest_compatible integer NOT NULL);
INSERT INTO @.meta VALUES (1, 0, 0);`

	// interrupted does something at the end of the migrations.
	interrupted = unmigrated + `
CREATE FUNCTION @.interrupt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN %; RETURN NEW; END';
CREATE TRIGGER interrupt BEFORE UPDATE ON @.meta FOR EACH ROW EXECUTE FUNCTION @.interrupt();`

	// readable lets a user work in a schema, and make nothing in it.
	readable = `GRANT USAGE ON SCHEMA @ TO newcomer; GRANT ALL ON ALL TABLES IN SCHEMA @ TO newcomer;`

	// nextHours is a schema in which it is time for tables.
	nextHours = `DELETE FROM @.periods;` + readable
)

// TestNotMigrated tells a schema that is not as it must be from a database that went away in the middle.
func TestNotMigrated(t *testing.T) {
	t.Parallel()
	if err := server.Exec(t.Context(), "postgres", "CREATE ROLE newcomer LOGIN"); err != nil {
		t.Fatal(err)
	}
	interrupt := func(action string) string { return strings.Replace(interrupted, "%", action, 1) }
	for name, test := range map[string]struct {
		statements string
		migrated   bool // before the statements
		newcomer   bool // who opens it
		want       error
		text       string
	}{
		"a first migration without rights": {statements: unmigrated + readable, newcomer: true, want: postgres.ErrNotMigrated, text: "permission denied"},
		"new tables without rights":        {migrated: true, statements: nextHours, newcomer: true, want: postgres.ErrNotMigrated, text: "permission denied"},
		"nothing to be made":               {migrated: true, statements: readable, newcomer: true},
		"a migration that fails":           {statements: interrupt(`RAISE EXCEPTION ''no''`), want: postgres.ErrNotMigrated, text: "no (SQLSTATE P0001)"},
		"a full volume":                    {statements: interrupt(`RAISE EXCEPTION ''no'' USING ERRCODE = ''disk_full''`), want: store.ErrFull, text: "53100"},
		"a cut connection":                 {statements: interrupt(`PERFORM pg_terminate_backend(pg_backend_pid())`), want: postgres.ErrUnreachable, text: "57P01"},
		"a migration that takes too long":  {statements: interrupt(`PERFORM pg_sleep(60)`), want: postgres.ErrNotMigrated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := postgres.Options{URL: server.URL("postgres"), Schema: newSchema(), Timeout: time.Second}
			if test.migrated {
				if err := open(t.Context(), options); err != nil {
					t.Fatal(err)
				}
			}
			if err := server.Exec(t.Context(), "postgres", strings.ReplaceAll(test.statements, "@", options.Schema)); err != nil {
				t.Fatal(err)
			}
			if test.newcomer {
				options.URL = strings.Replace(options.URL, "postgres@", "newcomer@", 1)
			}
			err := open(t.Context(), options)
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Fatalf("got %v, want %v with %q", err, test.want, test.text)
			}
			for _, other := range []error{postgres.ErrUnreachable, postgres.ErrNotMigrated, store.ErrFull} {
				if !errors.Is(test.want, other) && errors.Is(err, other) {
					t.Errorf("%v is %v, too", err, other)
				}
			}
			if err != nil && !test.migrated {
				checkUndone(t, options.Schema)
			}
		})
	}
}

// TestTooOld opens a database that says it is PostgreSQL 14, or something that counts its versions otherwise.
func TestTooOld(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		version string
		want    error
	}{
		"PostgreSQL 14": {"PostgreSQL 14.12 on x86_64", postgres.ErrTooOld},
		"CockroachDB":   {"CockroachDB CCL v25.1.0", nil},
		"YugabyteDB":    {"PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			past, schema := newSchema(), newSchema()
			for _, statement := range []string{
				"CREATE SCHEMA " + past,
				"CREATE FUNCTION " + past + ".current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''140012'''",
				"CREATE FUNCTION " + past + ".version() RETURNS text LANGUAGE sql AS 'SELECT ''" + test.version + "'''",
			} {
				if err := server.Exec(t.Context(), "postgres", statement); err != nil {
					t.Fatal(err)
				}
			}
			err := open(t.Context(), postgres.Options{URL: server.URL("postgres") + "&search_path=" + past + ",pg_catalog", Schema: schema})
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), "want PostgreSQL 15 or newer; it is version 140012") {
				t.Errorf("got %v, want %v", err, test.want)
			}
			var made bool
			query(t, &made, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)
			if made != (test.want == nil) {
				t.Errorf("is there a schema? %t", made)
			}
		})
	}
}

// query reads one value from the shared server.
func query(t *testing.T, value any, statement string, arguments ...any) {
	t.Helper()
	queryURL(t, server.URL("postgres"), value, statement, arguments...)
}

// queryURL reads one value from a server.
func queryURL(t *testing.T, url string, value any, statement string, arguments ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := conn.QueryRow(t.Context(), statement, arguments...).Scan(value); err != nil {
		t.Fatal(err)
	}
}

// checkUndone expects that a migration which failed left nothing behind.
func checkUndone(t *testing.T, schema string) {
	t.Helper()
	var tables, version int
	query(t, &tables, "SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema)
	query(t, &version, "SELECT version FROM "+schema+".meta")
	if tables != 1 || version != 0 {
		t.Errorf("there are %d tables, and the schema is version %d", tables, version)
	}
}
