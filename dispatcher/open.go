package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/settings"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

const (
	// lockWait is how long a starting dispatcher waits for its predecessor to leave the store.
	lockWait = 60 * time.Second
	// connectWait is how long it waits for a database that does not answer, before it says so and ends.
	connectWait = 15 * time.Second
	// spacePause is how often a store is tried to be opened whose volume has no space.
	spacePause = 5 * time.Second
)

// waitForStore opens the store. While it is full or read-only, it waits: to end would change nothing, and what is in the
// store is safe.
func (d *dispatcher) waitForStore(ctx context.Context) (store.Store, error) {
	for {
		opened, err := d.openStore(ctx)
		if err == nil {
			return opened, nil
		}
		if d.reporter != nil {
			d.reporter.Report(ctx, err)
		}
		if !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrReadOnly) {
			return nil, err
		}
		d.Logger.Error(err, "The store cannot be opened while it is full or read-only; trying again", "pause", spacePause)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(spacePause):
		}
	}
}

// openStore opens the store that the options name.
func (d *dispatcher) openStore(ctx context.Context) (store.Store, error) {
	logger := d.Logger.WithName("store")
	delivered, failed := d.start.Delivered, d.start.Failed
	if d.Settings == settingsKubernetes { // until it is known what may go, nothing does
		delivered, failed = settings.MaxRetention, settings.MaxRetention
	}
	if d.postgresURL != "" {
		return postgres.Open(ctx, postgres.Options{
			URL: d.postgresURL, Logger: logger, Registerer: d.registry, ConnectWait: connectWait,
			Retention: postgres.Retention{Delivered: delivered, Failed: failed},
		})
	}
	return pebble.OpenContext(ctx, d.pebbleDir, pebble.Options{
		Logger: logger, Registerer: d.registry, LockWait: lockWait, Now: steadyClock(), MaxOpenFiles: d.limits.StoreFiles,
		FS: d.Around.FS, Fatal: d.Around.Fatal, MeasurePause: d.Around.MeasurePause, SpacePause: d.Around.SpacePause,
		Retention: pebble.Retention{Delivered: delivered, Failed: failed},
	})
}

// steadyClock returns a wall clock that does not jump: due times and ages are kept on it, and a step of the machine's
// clock must neither delay what is due nor age what is young. A restart takes the machine's word anew.
func steadyClock() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start)) }
}
