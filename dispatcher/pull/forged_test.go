package pull

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// planned stores a delivery that is due after the given time, and returns where it waits.
func (f *fixture) planned(of *routing.Route, after time.Duration) delivery.Position {
	f.Helper()
	at := f.now().Add(after)
	f.next++
	e := newEvent(of, fmt.Sprintf("evt-%04d", f.next), 10)
	e.Subscriptions, e.Plans = nil, []store.Plan{{Subscription: of.Subscription, Decision: plan.Decision{At: at}}}
	if _, _, err := f.store.Append(f.Context(), []store.NewEvent{e}); err != nil {
		f.Fatal(err)
	}
	found, _, _, err := f.store.Due(f.Context(), of.Key, delivery.Position{Due: at.Add(-time.Millisecond)}, at.Add(time.Millisecond), 1, nil)
	if err != nil || len(found) != 1 {
		f.Fatal(found, err)
	}
	return found[0].Position()
}

// TestForged: the checksum has no key. A forged cursor is refused where no page can have had it, and acknowledges nothing that is
// not due.
func TestForged(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		due, given time.Duration // from now on
		swap       bool          // the first and the last
		wantErr    error
		wantState  delivery.State
	}{
		"due in a year, given after that":  {due: 365 * 24 * time.Hour, given: 366 * 24 * time.Hour, wantErr: ErrCursorInvalid, wantState: delivery.Pending},
		"due in a year, given now":         {due: 365 * 24 * time.Hour, wantErr: ErrCursorInvalid, wantState: delivery.Pending},
		"due within what clocks differ by": {due: 40 * time.Second, given: 50 * time.Second, wantState: delivery.Pending},
		"the last before the first":        {given: time.Second, swap: true, wantErr: ErrCursorInvalid, wantState: delivery.Pending},
		"as a page's":                      {given: time.Second, wantState: delivery.Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			billing := pulled(t, clinicA, "billing", nil)
			f := newFixture(t, billing)
			at := f.planned(billing, tc.due)
			c := cursor{subscription: billing.Key, given: f.now().Add(tc.given)}
			c.add(at)
			if tc.swap {
				c.first.Due = c.first.Due.Add(time.Millisecond)
			}
			page, err := f.Pull(t.Context(), request(billing, c.String(), 1))
			if err == nil {
				page.Release()
			}
			id := event.DeliveryID{Event: at.Event, Subscription: billing.Key}
			if r := f.get(id, clinicA); !errors.Is(err, tc.wantErr) || r.State != tc.wantState {
				t.Errorf("it is %v, with %v; want %v, with %v", r.State, err, tc.wantState, tc.wantErr)
			}
			f.calm()
		})
	}
}

// TestAcknowledgementIsBounded: it ends where everything was found, and looks at no more than a page can have been made from.
func TestAcknowledgementIsBounded(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	var ids []event.DeliveryID
	for range 5 {
		var events []store.NewEvent
		for range 1000 {
			f.next++
			events = append(events, newEvent(billing, fmt.Sprintf("evt-%04d", f.next), 10))
		}
		_, fanouts, err := f.store.Append(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		for i := range fanouts {
			ids = append(ids, event.DeliveryID{Event: fanouts[i].Event.Key, Subscription: billing.Key})
		}
	}
	first := f.want(request(billing, "", 1), ids[:1])
	c, err := parseCursor(first.Cursor, billing.Key, f.now())
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	f.store.due = func(context.Context, int) error { reads++; return nil }
	c.given = f.now()
	c.last = delivery.Position{Due: c.given}
	f.want(request(billing, c.String(), 1), ids[1:2])
	if reads != 2 { // one for the acknowledgement, one for the page
		t.Errorf("the store is read %d times although the first delivery was the only one", reads)
	}
	reads = 0
	c.prints[0][0]++
	f.want(request(billing, c.String(), 1), ids[1:2])
	if most := maxNamed/ackBatch + 2; reads > most {
		t.Errorf("the store is read %d times for a fingerprint of nothing, want at most %d", reads, most)
	}
}

// TestAcknowledgementGoesOn: what was found before the store failed is acknowledged, and the call says that the rest is not.
func TestAcknowledgementGoesOn(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, ackBatch+1, 10)
	page := f.want(request(billing, "", 100), ids)
	f.assembly = time.Second
	f.store.due = func(ctx context.Context, call int) error {
		if call != 1 {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	f.refused(request(billing, page.Cursor, 100), context.DeadlineExceeded)
	if r := f.get(ids[0], clinicA); r.State != delivery.Delivered {
		t.Errorf("the first is %v", r.State)
	}
	f.want(request(billing, "", 100), ids[ackBatch:])
	f.want(request(billing, page.Cursor, 100), nil)
	f.calm()
}
