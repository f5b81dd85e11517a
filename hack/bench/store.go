package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// The stores that can be measured.
const (
	storeEmbedded = "embedded"
	storePostgres = "postgres"
)

// postgresTargets take the place of the scenarios' own where the store is PostgreSQL, on the same machine.
var postgresTargets = map[string][]target{
	"batch":   {{"ratio to raw", true, 0.25}},
	"latency": {{"p99 at 200/s (ms)", false, 25}},
}

// targetsOf are what the scenario is to reach.
func (b *bench) targetsOf(s *scenario) []target {
	if b.store == storePostgres {
		return postgresTargets[s.name]
	}
	return s.targets
}

// startDatabase starts the server that all runs share, if they need one; fsync is on.
func (b *bench) startDatabase() (err error) {
	switch b.store {
	case storeEmbedded:
	case storePostgres:
		b.database, err = postgrestest.Start(postgrestest.Options{Durable: true})
	default:
		err = fmt.Errorf("-store=%q: want %s or %s", b.store, storeEmbedded, storePostgres)
	}
	return err
}

func (b *bench) stopDatabase() error {
	if b.database == nil {
		return nil
	}
	return b.database.Stop()
}

// newStore returns the command line's name of a store of its own for a run in dir.
func (b *bench) newStore(ctx context.Context, dir string) (string, error) {
	if b.database == nil {
		return "pebble:" + filepath.Join(dir, "store"), nil
	}
	name := "bench_" + strings.ToLower(filepath.Base(dir))
	return b.database.URL(name), b.database.Exec(ctx, "postgres", "CREATE DATABASE "+name)
}
