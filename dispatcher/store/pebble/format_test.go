package pebble_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// oldStore is a store that a program of format 1 wrote, in which events were moved and copied.
type oldStore struct {
	*testing.T
	*pebble.Store
	dir   string
	clock *storetest.Clock
	ids   map[string]event.DeliveryID
}

func newOldStore(t *testing.T) *oldStore {
	t.Helper()
	o := &oldStore{T: t, dir: t.TempDir(), ids: map[string]event.DeliveryID{}}
	if err := os.CopyFS(o.dir, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	var about struct {
		Now        time.Time
		Deliveries map[string]string
	}
	content, err := os.ReadFile(filepath.Join("testdata", "format1.json"))
	if err == nil {
		err = json.Unmarshal(content, &about)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.clock = storetest.NewClock(about.Now)
	for name, text := range about.Deliveries {
		if o.ids[name], err = event.ParseDeliveryID(text); err != nil {
			t.Fatal(err)
		}
	}
	o.open()
	return o
}

func (o *oldStore) open() {
	o.Helper()
	s, err := pebble.Open(o.dir, pebble.Options{FreeReserve: -1, Now: o.clock.Now})
	if err != nil {
		o.Fatal(err)
	}
	o.Store = s
}

func (o *oldStore) close() {
	o.Helper()
	if err := o.Close(); err != nil {
		o.Error(err)
	}
}

// stands expects a delivery in a state, with its event if it has one that can be asked for.
func (o *oldStore) stands(name string, want delivery.State) {
	o.Helper()
	r, err := o.Get(o.Context(), "clinic-a", o.ids[name])
	if err != nil || r.State != want || r.EventID != name {
		o.Errorf("%s is %v, %v; want %s", name, r, err, want)
	}
	if want == delivery.Pending {
		o.hasBody(name)
	}
}

func (o *oldStore) hasBody(name string) {
	o.Helper()
	e, err := o.Event(o.Context(), o.ids[name].Event)
	if err != nil || !bytes.Equal(e.Body, bytes.Repeat([]byte(name+" "), 20)) {
		o.Errorf("the event of %s is %v, %v", name, e, err)
	}
}

func (o *oldStore) gone(name string) {
	o.Helper()
	if r, err := o.Get(o.Context(), "clinic-a", o.ids[name]); !errors.Is(err, store.ErrNotFound) {
		o.Errorf("%s is %v, %v; want it gone", name, r, err)
	}
}

func (o *oldStore) pass(d time.Duration) {
	o.Helper()
	o.clock.Advance(d)
	if err := o.Expire(o.clock.Now()); err != nil {
		o.Error(err)
	}
}

// TestOldFormatIsRead opens a store of format 1, and lets its moved and copied events live out their lives.
func TestOldFormatIsRead(t *testing.T) {
	t.Parallel()
	o := newOldStore(t)
	check := func() {
		t.Helper()
		o.stands("pending-moved", delivery.Pending)
		o.stands("retried-moved", delivery.Pending)
		o.stands("pending-new", delivery.Pending)
		o.stands("failed-old", delivery.Failed)
		o.stands("failed-new", delivery.Failed)
	}
	check()
	o.stands("delivered-late", delivery.Delivered)
	o.stands("delivered-new", delivery.Delivered)
	o.gone("delivered-gone")
	o.close()
	o.open()
	check()
	for range 5 {
		o.pass(12 * time.Hour)
		check()
	}
	o.gone("delivered-late")
	o.gone("delivered-new")
	pending, err := o.Replay(t.Context(), "clinic-a", o.ids["failed-old"])
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		o.pass(24 * time.Hour)
		o.stands("failed-old", delivery.Pending)
		o.stands("pending-moved", delivery.Pending)
	}
	o.gone("failed-new")
	outcome := delivery.Outcome{Delivery: pending, State: delivery.Failed, Attempt: benchAttempt(&pending, 500, "")}
	if err := o.Record(t.Context(), []delivery.Outcome{outcome}); err != nil {
		t.Fatal(err)
	}
	o.pass(29 * 24 * time.Hour)
	o.stands("failed-old", delivery.Failed)
	if _, err := o.Replay(t.Context(), "clinic-a", o.ids["failed-old"]); err != nil {
		t.Fatal(err)
	}
	o.stands("failed-old", delivery.Pending)
	o.close()
}

// TestOldFormatIsMarked: once this program wrote to a store, an older one, which does not know references, refuses it.
func TestOldFormatIsMarked(t *testing.T) {
	t.Parallel()
	o := newOldStore(t)
	o.close()
	if got := pebble.Format(t, o.dir); got != 3 {
		t.Errorf("the store has format %d", got)
	}
}
