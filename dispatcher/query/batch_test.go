package query

import (
	"errors"
	"testing"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// TestBatch goes through a batch by pages. What was done goes to the engine, and what is in another state is passed over.
func TestBatch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		state delivery.State
		batch Batch
		// wantResumed is how many the engine got.
		wantResumed int
	}{
		"failed by default": {delivery.Failed, Batch{}, 9},
		"delivered":         {delivery.Delivered, Batch{State: delivery.Delivered}, 9},
		"cancel":            {delivery.Pending, Batch{Cancel: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, ids := newFixture(t, 10, test.state)
			for i := range ids {
				f.store.records[ids[i]].Planned = noon.AddDate(1, 0, 0)
			}
			test.batch.Tenant = "clinic-a"
			first, err := f.Page(t.Context(), test.batch, event.DeliveryID{}, 6)
			if err != nil || len(first) != 6 || first[0] != ids[0] {
				t.Fatalf("the first page: %d, %v", len(first), err)
			}
			f.store.records[ids[3]].State = map[bool]delivery.State{false: delivery.Pending, true: delivery.Delivered}[test.batch.Cancel]
			done, err := f.Apply(t.Context(), test.batch, first)
			if err != nil || done != 5 {
				t.Fatalf("%d were done, %v; want 5", done, err)
			}
			rest, err := f.Page(t.Context(), test.batch, first[5], 6)
			if err != nil || len(rest) != 4 || rest[0] != ids[6] {
				t.Fatalf("the second page: %v, %v", rest, err)
			}
			if done, err := f.Apply(t.Context(), test.batch, rest); err != nil || done != 4 {
				t.Errorf("%d were done, %v; want 4", done, err)
			}
			if len(f.resumed) != test.wantResumed {
				t.Errorf("the engine got %d, want %d", len(f.resumed), test.wantResumed)
			}
			repeated, err := f.Repeated(t.Context(), test.batch, first[5], noon)
			want := 0
			if test.state == delivery.Delivered {
				want = 4 // of nine that were repeated, those behind the first page
			}
			if err != nil || len(repeated) != want {
				t.Errorf("%d were repeated behind the first page, %v; want %d", len(repeated), err, want)
			}
		})
	}
}

// TestApplyIsOfOneTenant: a delivery of another tenant is passed over, as one that is not kept any more.
func TestApplyIsOfOneTenant(t *testing.T) {
	t.Parallel()
	f, ids := newFixture(t, 3, delivery.Failed)
	if done, err := f.Apply(t.Context(), Batch{Tenant: "clinic-b"}, ids); done != 0 || err != nil || len(f.resumed) != 0 {
		t.Errorf("%d were done, %v", done, err)
	}
}

func TestPassable(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		store.ErrStillPending: true, store.ErrNotPending: true, store.ErrNotFound: true, store.ErrErased: true, store.ErrDamaged: true,
		store.ErrFull: false, store.ErrKeys: false, store.ErrReadOnly: false, errors.New("timeout"): false,
	} {
		if passable(err) != want {
			t.Errorf("%v is passed over: %v", err, !want)
		}
	}
}
