package pebble

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

func TestEventKey(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 2)
	if want, got := event.NewKey(at, "clinic", "evt"), identityOf("clinic", "evt").eventKey(nanos(at)); want != got {
		t.Errorf("the key is %x, want %x", got, want)
	}
}

// TestIDsOfYesterday opens the store again on the day after: which days have ids is then read, not remembered.
func TestIDsOfYesterday(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Unix(0, int64(20*day)).Add(-time.Hour))
	options := Options{FS: vfs.NewMem(), Now: clock.Now}
	for _, step := range []struct {
		after        time.Duration
		wantRepeated bool
		wantDays     []uint32 // after the append, and an expiry
	}{
		{0, false, []uint32{19}},
		{2 * time.Hour, true, []uint32{19}},
		{22 * time.Hour, false, []uint32{19, 20}},
		{24 * time.Hour, false, []uint32{20, 21}},
	} {
		clock.Advance(step.after)
		s, err := Open("data", options)
		if err != nil {
			t.Fatal(err)
		}
		e := store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{Tenant: "clinic", ID: "evt"}}}
		answers, _, err := s.Append(t.Context(), []store.NewEvent{e})
		if err != nil {
			t.Fatal(err)
		}
		if answers[0].Repeated != step.wantRepeated {
			t.Errorf("%v: repeated is %t, want %t", clock.Now().UTC(), answers[0].Repeated, step.wantRepeated)
		}
		if err := s.Expire(clock.Now()); err != nil {
			t.Fatal(err)
		}
		if got := s.ids.list(); !slices.Equal(got, step.wantDays) {
			t.Errorf("%v: there are ids of the days %v, want %v", clock.Now().UTC(), got, step.wantDays)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
