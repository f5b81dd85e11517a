package pull

import (
	"context"
	"slices"
	"testing"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// meddler calls then once a request was made.
type meddler struct {
	Maker
	then func(made int)
	made int
}

func (m *meddler) Make(ctx context.Context, r payload.Request, use func(egress.Request) error) (egress.Result, error) {
	result, err := m.Maker.Make(ctx, r, use)
	m.made++
	m.then(m.made)
	return result, err
}

// TestCancelledMeanwhile: what is cancelled while the page is made is not in it, wherever it stands, and no cursor names it.
func TestCancelledMeanwhile(t *testing.T) {
	t.Parallel()
	for name, cancelled := range map[string][]int{
		"none": nil, "the first": {0}, "one between": {1}, "the last": {3}, "two": {0, 2}, "all but one": {0, 1, 3}, "all": {0, 1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			billing := pulled(t, clinicA, "billing", nil)
			f := newFixture(t, billing)
			ids := f.publish(billing, 4, 10)
			gone := map[event.DeliveryID]bool{}
			f.options.Maker = &meddler{Maker: f.options.Maker, then: func(made int) {
				if made != len(ids) {
					return
				}
				for _, i := range cancelled {
					gone[ids[i]] = true
					if err := f.store.Cancel(t.Context(), clinicA, ids[i]); err != nil {
						t.Error(err)
					}
				}
			}}
			page, err := f.Pull(t.Context(), request(billing, "", 10))
			if err != nil {
				t.Fatal(err)
			}
			var want []event.DeliveryID
			for _, id := range ids {
				if !gone[id] {
					want = append(want, id)
				}
			}
			a := f.read(page)
			if !slices.Equal(a.ids(), texts(want)) {
				t.Errorf("got %q, want %q", a.ids(), texts(want))
			}
			if len(want) > 0 {
				f.want(request(billing, a.Cursor, 10), nil)
			}
			for _, id := range ids {
				wantState := delivery.Delivered
				if gone[id] {
					wantState = delivery.Cancelled
				}
				if r := f.get(id, clinicA); r.State != wantState {
					t.Errorf("a delivery is %v, want %v", r.State, wantState)
				}
			}
			f.calm()
		})
	}
}
