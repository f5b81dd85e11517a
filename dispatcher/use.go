package dispatcher

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/status"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// useFile is what an embedded store's folder says of whether it ever held an event.
	useFile = "eventflow-store.json"
	// useTimeout bounds the question whether the first event may be accepted.
	useTimeout = 5 * time.Second
	// usePause is how often a store is announced whose announcement failed.
	usePause = 5 * time.Second
)

// use is what a folder says of the store in it. It is written before the store accepts its first event, and Used stays.
type use struct {
	ID   string `json:"id"`
	Used bool   `json:"used"`
}

// prepareUse notes of a folder that is empty yet that no event is in it. Call it before the store is opened.
func prepareUse(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into the store's folder: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != "lost+found" {
			return nil
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the store's folder: %w", err)
	}
	return writeUse(dir, use{ID: rand.Text()})
}

// readUse reads what a folder says of its store. A store of which it says nothing may hold events.
func readUse(dir string) (use, error) {
	text, err := os.ReadFile(filepath.Join(dir, useFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return use{}, fmt.Errorf("read how the store is used: %w", err)
	}
	found := use{}
	if err == nil && json.Unmarshal(text, &found) == nil && found.ID != "" {
		return found, nil
	}
	found = use{ID: rand.Text(), Used: true}
	return found, writeUse(dir, found)
}

// writeUse replaces what a folder says of its store, so that it holds after a power failure.
func writeUse(dir string, u use) error {
	text, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode how the store is used: %w", err)
	}
	next := filepath.Join(dir, useFile+".new")
	for _, step := range []func() error{
		func() error { return writeSynced(next, text) },
		func() error { return os.Rename(next, filepath.Join(dir, useFile)) },
		func() error { return syncFolder(dir) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("write how the store is used: %w", err)
		}
	}
	return nil
}

func writeSynced(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// announcer is where a store's use is said; status.StoreUse is one.
type announcer interface {
	Announce(ctx context.Context, used bool) (bool, error)
	Use(ctx context.Context) error
}

// firstUse is an embedded store that accepts its first event only once the WebhookDispatcher's status says that it is used:
// the manager may replace a store that is not (ADR 7). From then on it is the store itself.
type firstUse struct {
	store.Store
	dir string
	to  announcer

	used, abandoned atomic.Bool
	turn            chan struct{} // held by whoever asks; one asks for all
	id              string
}

func newFirstUse(s store.Store, dir string, now use, to announcer) *firstUse {
	f := &firstUse{Store: s, dir: dir, to: to, id: now.ID, turn: make(chan struct{}, 1)}
	f.used.Store(now.Used)
	return f
}

// Append makes the first events wait until the store counts as used. If nobody can be told, they are not accepted.
func (f *firstUse) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	if !f.used.Load() {
		if err := f.use(ctx); err != nil {
			return nil, nil, fmt.Errorf("accept the store's first event: %w", err)
		}
	}
	return f.Store.Append(ctx, events)
}

func (f *firstUse) use(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.leave()
	if f.used.Load() {
		return nil
	}
	if f.abandoned.Load() {
		return status.ErrAbandoned
	}
	used, err := f.to.Announce(ctx, false)
	if err == nil && !used {
		err = f.to.Use(ctx)
	}
	if err != nil {
		f.abandoned.Store(errors.Is(err, status.ErrAbandoned)) // until it can be announced: its volume is on its way out
		return err
	}
	return f.note()
}

// note writes beside the store that it is used: its next start need not ask.
func (f *firstUse) note() error {
	if err := writeUse(f.dir, use{ID: f.id, Used: true}); err != nil {
		return err
	}
	f.used.Store(true)
	return nil
}

func (f *firstUse) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *firstUse) leave() { <-f.turn }

// announce says how the store is used until somebody has heard it, or ctx ends.
func (f *firstUse) announce(ctx context.Context, failed func(error)) {
	for {
		err := f.announceOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(usePause):
		}
	}
}

func (f *firstUse) announceOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.leave()
	used, err := f.to.Announce(ctx, f.used.Load())
	if err == nil {
		f.abandoned.Store(false) // the manager took it back: the volume was not a new one
	}
	if err != nil || !used || f.used.Load() {
		return err
	}
	return f.note()
}

// trackUse makes the embedded store of a WebhookDispatcher report whether it ever held an event. config is nil without one.
func (d *dispatcher) trackUse(config *rest.Config) error {
	if d.Routes != routesKubernetes || d.pebbleDir == "" {
		return nil
	}
	now, err := readUse(d.pebbleDir)
	if err != nil {
		return err
	}
	to, err := status.NewStoreUse(config, d.Namespace, d.Name, now.ID)
	if err != nil {
		return err
	}
	d.firstUse = newFirstUse(d.store, d.pebbleDir, now, to)
	return nil
}
