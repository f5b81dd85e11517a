package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

// migrations are numbered from 1 on, without gaps. Each may only add: the program of the version before runs beside it.
//
//go:embed schema/*.sql
var migrations embed.FS

// oldestCompatible is the oldest version of the program's schema that can work on what its migrations make. A program
// that knows only older ones refuses.
const oldestCompatible = 1

// The errors of Open that a caller may want to tell apart.
var (
	// ErrUnreachable: no connection could be made to a server that accepts writes.
	ErrUnreachable = errors.New("the database cannot be reached")
	// ErrTooOld: the server is older than PostgreSQL 15.
	ErrTooOld = errors.New("the database server is too old: want PostgreSQL 15 or newer")
	// ErrNewerSchema: a newer program made the schema, and this one cannot work on it.
	ErrNewerSchema = errors.New("a newer version of eventflow made the database's schema")
	// ErrNotMigrated: the schema is not there, or too old, and could not be made.
	ErrNotMigrated = errors.New("the database's schema could not be brought up to date")
)

// oldestServer is the first server_version_num that is supported.
const oldestServer = 150000

// checkServer refuses servers that are too old. The compatible ones count their versions otherwise.
func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var number, version string
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num'), version()`).Scan(&number, &version); err != nil {
		return fmt.Errorf("ask the database for its version: %w", concealed(err))
	}
	if n, err := strconv.Atoi(number); err != nil || n < oldestServer {
		for _, compatible := range []string{"CockroachDB", "-YB-"} {
			if strings.Contains(version, compatible) {
				return nil
			}
		}
		return fmt.Errorf("%w; it is version %s", ErrTooOld, number)
	}
	return nil
}

// migrate brings the schema up to date. Of several that try at once, the first does it, and the others wait.
func (s *Store) migrate(ctx context.Context) error {
	steps, err := migrationFiles(migrations)
	if err != nil {
		return err
	}
	// Two that create the same thing at once may both find it missing, and one fails: it finds it there the next time.
	err = retry(ctx, 5, func() error { return s.createMeta(ctx) })
	if err == nil {
		err = s.transact(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.applyMigrations(ctx, conn, steps) })
	}
	if err != nil && !errors.Is(err, ErrNewerSchema) {
		return notMigrated(err)
	}
	return err
}

// notMigrated says why the schema is not as it must be: the database is gone, its volume is full, it takes no
// writes, or else it refused.
// Who waited in vain for another that migrates finds the schema as it was.
func notMigrated(err error) error {
	reason := ErrNotMigrated
	switch {
	case code(err) == codeDiskFull:
		reason = store.ErrFull
	case isReadOnly(err):
		reason = store.ErrReadOnly
	case isLost(err) && !pgconn.Timeout(err) && code(err) != codeCanceled:
		reason = ErrUnreachable
	}
	return fmt.Errorf("%w: %w", reason, concealed(err))
}

// createMeta makes the schema, and in it the row that who migrates holds.
func (s *Store) createMeta(ctx context.Context) error {
	var version int
	err := s.pool.QueryRow(ctx, s.sql(`SELECT version FROM eventflow.meta`)).Scan(&version)
	if err == nil {
		return nil // and no right to create anything is needed
	}
	var exists bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, s.options.Schema).Scan(&exists); err != nil {
		return concealed(err)
	}
	if !exists { // else no right to create one is needed
		if _, err := s.pool.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+s.options.Schema); err != nil {
			return concealed(err)
		}
	}
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS eventflow.meta (id integer PRIMARY KEY, version integer NOT NULL, oldest_compatible integer NOT NULL)`,
		`INSERT INTO eventflow.meta (id, version, oldest_compatible) VALUES (1, 0, 0) ON CONFLICT (id) DO NOTHING`,
	} {
		if _, err := s.pool.Exec(ctx, s.sql(statement)); err != nil {
			return concealed(err)
		}
	}
	return nil
}

func (s *Store) applyMigrations(ctx context.Context, conn *pgx.Conn, steps []string) error {
	var version, oldest int
	err := conn.QueryRow(ctx, s.sql(`SELECT version, oldest_compatible FROM eventflow.meta WHERE id = 1 FOR UPDATE`)).Scan(&version, &oldest)
	if err != nil {
		return err
	}
	if version >= len(steps) {
		if oldest > len(steps) {
			return fmt.Errorf("%w: it is version %d, this program knows up to %d", ErrNewerSchema, version, len(steps))
		}
		return nil
	}
	for n := version; n < len(steps); n++ {
		if _, err := conn.Exec(ctx, s.sql(steps[n]), pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("migration %d: %w", n+1, concealed(err))
		}
	}
	_, err = conn.Exec(ctx, s.sql(`UPDATE eventflow.meta SET version = $1, oldest_compatible = $2 WHERE id = 1`), len(steps), oldestCompatible)
	if err == nil {
		s.options.Logger.Info("The database's schema was brought up to date", "from", version, "to", len(steps))
	}
	return err
}

// migrationFiles returns the migrations in their order.
func migrationFiles(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "schema/*.sql")
	if err != nil {
		return nil, err
	}
	steps := make([]string, 0, len(names))
	for i, name := range names { // sorted
		if !strings.HasPrefix(name, fmt.Sprintf("schema/%04d_", i+1)) {
			return nil, fmt.Errorf("migration %s: want number %d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, string(text))
	}
	return steps, nil
}
