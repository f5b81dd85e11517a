package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// database is one of its own, with a store in it.
type database struct {
	*testing.T
	server *postgrestest.Server
	*postgres.Store
	name string
	sub  *delivery.Subscription
	next int
}

func newDatabase(t *testing.T, on *postgrestest.Server, clause string) *database {
	t.Helper()
	d := &database{T: t, server: on, name: newSchema() + "_db", sub: &delivery.Subscription{Key: event.NewSubscriptionKey("a"), Tenant: namespace, Name: "a"}}
	d.execute("CREATE DATABASE " + d.name + clause)
	t.Cleanup(func() {
		if err := on.Exec(context.WithoutCancel(t.Context()), "postgres", "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	s, err := postgres.Open(t.Context(), d.options())
	if err != nil {
		t.Fatal(err)
	}
	d.Store = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *database) options() postgres.Options {
	return postgres.Options{URL: d.server.URL(d.name) + "&pool_max_conns=4", Timeout: 3 * time.Second}
}

// execute runs a statement from outside of the database.
func (d *database) execute(statement string) {
	d.Helper()
	if err := d.server.Exec(d.Context(), "postgres", statement); err != nil {
		d.Fatal(err)
	}
}

// cut ends the connections to the database, so that new ones have its new settings.
func (d *database) cut() {
	d.Helper()
	d.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + d.name + "'")
}

func (d *database) publish(size int) ([]delivery.Fanout, error) {
	d.next++
	body := make([]byte, size)
	_, _ = rand.Read(body)
	_, deliveries, err := d.Append(d.Context(), []store.NewEvent{{Fanout: delivery.Fanout{
		Event:         &delivery.Event{Tenant: namespace, ID: fmt.Sprint("evt-", d.next), Type: "patient.created", Body: body},
		Subscriptions: []*delivery.Subscription{d.sub},
	}}})
	return deliveries, err
}

func (d *database) eventually(what string, holds func() bool) {
	d.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-timeout.C:
			d.Fatalf("not in time: %s; Ready gives %v", what, d.Ready())
		}
	}
}

// TestReadOnlyDatabase makes a database refuse writes, and take them again.
func TestReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	for name, publishes := range map[string]bool{"while events are published": true, "while nothing is published": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, server, "")
			before, err := d.publish(100)
			if err != nil {
				t.Fatal(err)
			}
			d.execute("ALTER DATABASE " + d.name + " SET default_transaction_read_only = on")
			d.cut()
			d.eventually("it says that the database is read-only", func() bool {
				if publishes {
					if _, err := d.publish(100); err == nil {
						t.Error("an event was accepted by a read-only database")
					}
				}
				return errors.Is(d.Ready(), store.ErrReadOnly)
			})
			if _, err := d.publish(100); !errors.Is(err, store.ErrReadOnly) || errors.Is(err, store.ErrFull) || strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("Append gave %v", err)
			}
			if _, err := d.Replay(t.Context(), namespace, before[0].Delivery(d.sub).ID); !errors.Is(err, store.ErrReadOnly) {
				t.Errorf("Replay gave %v", err)
			}
			if _, err := postgres.Open(t.Context(), postgres.Options{URL: d.server.URL(d.name), Schema: "another"}); !errors.Is(err, store.ErrReadOnly) {
				t.Errorf("Open of what is not there yet gave %v", err)
			}
			d.execute("ALTER DATABASE " + d.name + " RESET default_transaction_read_only")
			d.eventually("events are accepted again", func() bool { _, err := d.publish(100); return err == nil && d.Ready() == nil })
			if e, err := d.Event(t.Context(), before[0].Event.Key); err != nil || len(e.Body) != 100 {
				t.Errorf("what was accepted before is %v, %v", e, err)
			}
		})
	}
}

// TestFullTablespace fills a database's volume to the last page, and then enlarges it.
func TestFullTablespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small volume takes root")
	}
	root, err := os.MkdirTemp("", "eventflow-tablespace-") //nolint:usetesting // the server's account cannot get into t.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	own := ownServer(t, nil) // a checkpoint of the tests' server would fail with the volume
	account := dataOwner(t, own)
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=24m,mode=0700,uid=%d,gid=%d", account.Uid, account.Gid)); err != nil {
		t.Skip("no small volume can be mounted here:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	space := newSchema() + "_space"
	if err := own.Exec(t.Context(), "postgres", "CREATE TABLESPACE "+space+" LOCATION '"+root+"'"); err != nil {
		t.Fatal(err)
	}
	d := newDatabase(t, own, " TABLESPACE "+space)
	var accepted []delivery.Fanout
	d.eventually("it says that the volume is full", func() bool {
		deliveries, err := d.publish(64 << 10)
		if err != nil && !errors.Is(err, store.ErrFull) {
			t.Fatalf("Append gave %v", err)
		}
		accepted = append(accepted, deliveries...)
		return err != nil
	})
	if err := d.Ready(); !errors.Is(err, store.ErrFull) {
		t.Errorf("Ready gave %v", err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	d.eventually("events are accepted again", func() bool { _, err := d.publish(64 << 10); return err == nil && d.Ready() == nil })
	for _, a := range accepted {
		if _, err := d.Event(t.Context(), a.Event.Key); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d events fit before", len(accepted))
}

// dataOwner is the account that the server runs under.
func dataOwner(t *testing.T, on *postgrestest.Server) *syscall.Stat_t {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), on.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var folder string
	if err := conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&folder); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Clean(folder))
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}
