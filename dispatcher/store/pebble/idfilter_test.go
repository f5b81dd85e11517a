package pebble

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// numbered is the n-th of a row of ids.
func numbered(n int) identity { return identityOf("clinic", fmt.Sprint(n)) }

func TestIDFilter(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("has no concurrency, and runs without the race detector: make test")
	}
	var s idFilter
	if id := numbered(0); !s.has(&id) {
		t.Error("it denies an id before it has read those in the store")
	}
	s.complete.Store(true)
	const each = 2_000_000 // more than the first part has room for
	for n := range each {
		s.add(uint32(n/(each/2)), numbered(n))
	}
	wrong := 0
	for n := range 2 * each {
		id := numbered(n)
		switch has := s.has(&id); {
		case n < each && !has:
			t.Fatalf("id %d was added and is denied", n)
		case n >= each && has:
			wrong++
		}
	}
	parts := s.list()
	if want := each * len(parts) / 100; len(parts) != 2 || wrong > want {
		t.Errorf("%d ids of %d are taken for known in %d parts, want at most %d in 2", wrong, each, len(parts), want)
	}
	if s.drop(0); len(s.list()) != 1 {
		t.Errorf("%d parts stay after the first day, want 1", len(s.list()))
	}
	if id := numbered(each - 1); !s.has(&id) {
		t.Error("an id of the day that stays is denied")
	}
	if s.drop(1); len(s.list()) != 0 {
		t.Errorf("%d parts stay after the second day, want none", len(s.list()))
	}
}

func TestIDFilterIsBounded(t *testing.T) {
	t.Parallel()
	var s idFilter
	s.complete.Store(true)
	for range 20 {
		s.add(1, numbered(1))
		s.newest().free = 0
	}
	bytes := 0
	for _, p := range s.list() {
		bytes += len(p.words) * 8
	}
	if bytes > filterBytesAll || bytes < filterBytesAll/2 {
		t.Errorf("the filter takes %d bytes, want at most %d, and most of them", bytes, filterBytesAll)
	}
	last := s.newest()
	if id := numbered(2); true {
		if s.add(1, id); !last.has(&id) {
			t.Error("a full filter does not take an id")
		}
	}
}

// TestIDFilterOfAStore opens a store again: what it knew is known, from disk and then from the filter.
func TestIDFilterOfAStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := Options{FS: vfs.NewMem()}
		const each = 3 * idsAtOnce / 2
		for run := range 3 {
			s, err := Open("data", options)
			if err != nil {
				t.Fatal(err)
			}
			if run == 1 {
				synctest.Wait() // until the ids are read; the other runs go on meanwhile
				if !s.idFilter.complete.Load() {
					t.Fatal("the ids in the store were not read")
				}
			}
			events := make([]store.NewEvent, 0, each)
			for n := range each {
				var digest [16]byte
				binary.BigEndian.PutUint64(digest[:], uint64(n))
				events = append(events, store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{Tenant: "clinic", ID: fmt.Sprint(n)}}, Digest: digest})
			}
			answers, _, err := s.Append(t.Context(), events)
			if err != nil {
				t.Fatal(err)
			}
			for n, answer := range answers {
				if answer.Repeated != (run > 0) {
					t.Fatalf("run %d: event %d is repeated: %t", run, n, answer.Repeated)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
