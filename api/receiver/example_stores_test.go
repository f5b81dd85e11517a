package receiver_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // any driver of database/sql

	"github.com/clinikapi/eventflow/api/receiver"
	"github.com/clinikapi/eventflow/api/receiver/receivertest"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// postgres is a Deduplicator in PostgreSQL, for replicas. Delete rows whose handled is older than 73 hours by a cron job.
type postgres struct{ db *sql.DB }

const table = `CREATE TABLE IF NOT EXISTS webhook_deliveries (
	key text PRIMARY KEY, owner text NOT NULL DEFAULT '', claimed_until timestamptz NOT NULL DEFAULT now(), handled timestamptz)`

func (p postgres) Claim(ctx context.Context, key, owner string, lease time.Duration) (receiver.Claim, error) {
	const claim = `INSERT INTO webhook_deliveries AS d (key, owner, claimed_until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
		ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, claimed_until = excluded.claimed_until
		WHERE d.handled IS NULL AND d.claimed_until < clock_timestamp()`
	result, err := p.db.ExecContext(ctx, claim, key, owner, lease.Seconds())
	if err != nil {
		return 0, err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 1 {
		return receiver.Claimed, err
	}
	var handled bool
	err = p.db.QueryRowContext(ctx, `SELECT handled IS NOT NULL FROM webhook_deliveries WHERE key = $1`, key).Scan(&handled)
	switch {
	case handled:
		return receiver.Handled, nil
	case err == nil, errors.Is(err, sql.ErrNoRows): // released in between: the next attempt takes it
		return receiver.InProgress, nil
	}
	return 0, err
}

func (p postgres) Done(ctx context.Context, key string) error {
	_, err := p.db.ExecContext(ctx, `INSERT INTO webhook_deliveries (key, handled) VALUES ($1, now()) ON CONFLICT (key) DO UPDATE SET handled = now()`, key)
	return err
}

func (p postgres) Release(ctx context.Context, key, owner string) error {
	_, err := p.db.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE key = $1 AND owner = $2 AND handled IS NULL`, key, owner)
	return err
}

func TestPostgresDeduplicator(t *testing.T) {
	t.Parallel()
	server, err := postgrestest.Start(postgrestest.Options{})
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	db, err := sql.Open("pgx", server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	receivertest.Deduplicator(t, postgres{db}, "")
}

// redisClient is what is needed of a client of Redis.
type redisClient interface {
	SetNew(ctx context.Context, key, value string, ttl time.Duration) (bool, error) // SET key value NX PX ttl
	Set(ctx context.Context, key, value string, ttl time.Duration) error            // SET key value PX ttl
	Get(ctx context.Context, key string) (string, error)                            // GET key, "" if there is none
	DeleteIf(ctx context.Context, key, value string) error                          // in Lua: if GET key is value, DEL key
}

// redis is a Deduplicator in Redis, for replicas.
type redis struct{ client redisClient }

const redisHandled = "handled" // no owner is called so

func (r redis) Claim(ctx context.Context, key, owner string, lease time.Duration) (receiver.Claim, error) {
	if taken, err := r.client.SetNew(ctx, key, owner, lease); err != nil || taken {
		return receiver.Claimed, err
	}
	value, err := r.client.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if value == redisHandled {
		return receiver.Handled, nil
	}
	return receiver.InProgress, nil
}

func (r redis) Done(ctx context.Context, key string) error {
	return r.client.Set(ctx, key, redisHandled, 73*time.Hour)
}

func (r redis) Release(ctx context.Context, key, owner string) error {
	return r.client.DeleteIf(ctx, key, owner)
}

// fakeRedis is a redisClient in memory.
type fakeRedis struct {
	mu     sync.Mutex
	values map[string]string
}

func (f *fakeRedis) SetNew(_ context.Context, key, value string, ttl time.Duration) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.values[key]; ok {
		return false, nil
	}
	if ttl > 0 {
		f.values[key] = value
	}
	return true, nil
}

func (f *fakeRedis) Set(_ context.Context, key, value string, _ time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[key] = value
	return nil
}

func (f *fakeRedis) Get(_ context.Context, key string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values[key], nil
}

func (f *fakeRedis) DeleteIf(_ context.Context, key, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values[key] == value {
		delete(f.values, key)
	}
	return nil
}

func TestRedisDeduplicator(t *testing.T) {
	t.Parallel()
	receivertest.Deduplicator(t, redis{&fakeRedis{values: map[string]string{}}}, "")
}

// Several replicas share a Deduplicator.
func ExampleDeduplicator() {
	var db *sql.DB // sql.Open
	_, _ = receiver.New(receiver.Config{Secrets: []string{receivertest.Secret}, Deduplicator: postgres{db}})
	var client redisClient // a few lines around the client that you use
	_, _ = receiver.New(receiver.Config{Secrets: []string{receivertest.Secret}, Deduplicator: redis{client}})
	// Output:
}
