package postgres_test

import (
	"context"
	"flag"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

var histories = flag.Int("histories", 3, "random histories in which the server is killed")

// TestCrashes kills all processes of a store's own server in the middle of what it does, again and again.
func TestCrashes(t *testing.T) {
	t.Parallel()
	storetest.RunCrashes(t, killable, 1, *histories)
}

// killable keeps a store on a server of its own.
func killable(t testing.TB, settings storetest.Settings) storetest.Place {
	own, err := postgrestest.Start(postgrestest.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop() })
	return storetest.Place{
		Shared: true, Kills: true,
		Open: func() (store.Store, error) {
			return postgres.Open(t.Context(), postgres.Options{
				URL: own.URL("postgres"), Now: settings.Now,
				Retention: postgres.Retention{Delivered: settings.Delivered, Failed: settings.Failed},
			})
		},
		Crash: func() {
			if err := own.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := own.Start(); err != nil {
				t.Fatal(err)
			}
		},
		Expire: func(s store.Store) error { return s.(*postgres.Store).Expire(context.Background(), settings.Now()) },
	}
}
