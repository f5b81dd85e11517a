package pull

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// publishNumber stores an event by which a transform that divides by its note succeeds.
func (f *fixture) publishNumber(of *routing.Route) event.DeliveryID {
	f.Helper()
	e := newEvent(of, "evt-number", 10)
	e.Event.Body = []byte(`{"id":"evt-number","type":"patient.created","timestamp":"2026-01-02T03:04:05.000Z","data":{"note":"5"}}`)
	_, fanouts, err := f.store.Append(f.Context(), []store.NewEvent{e})
	if err != nil {
		f.Fatal(err)
	}
	return event.DeliveryID{Event: fanouts[0].Event.Key, Subscription: of.Key}
}

// divides fails for each event but that of publishNumber.
func divides(e *routing.Entry) {
	e.Transform = &routing.Transform{Body: "{'n': 10 / int(event.data.note)}"}
}

// TestPassedOverHoldsNothing: more than a tenant's memory may be passed over before what can be answered.
func TestPassedOverHoldsNothing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		with      func(*routing.Entry)
		wantState delivery.State // of what is passed over
		last      func(*fixture, *routing.Route) event.DeliveryID
	}{
		"transforms that fail": {divides, delivery.Pending, (*fixture).publishNumber},
		"rechecks that are false": {func(e *routing.Entry) {
			e.Schedule = &routing.Schedule{At: "event.timestamp", Recheck: "event.data.resourceId == 'evt-0031'"}
		}, delivery.Cancelled, func(f *fixture, of *routing.Route) event.DeliveryID { return f.publish(of, 1, 10)[0] }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			billing := pulled(t, clinicA, "billing", tc.with)
			f := newFixture(t, billing)
			ids := f.publish(billing, 30, 1<<20-200)
			f.want(request(billing, "", 100), []event.DeliveryID{tc.last(f, billing)})
			for _, id := range ids {
				if r := f.get(id, clinicA); r.State != tc.wantState || r.State == delivery.Pending && r.AttemptCount != 1 {
					t.Errorf("it is %v after %d attempts", r.State, r.AttemptCount)
				}
			}
			f.calm()
		})
	}
}

// TestOutcomesAreKept: whatever ends an empty page, what it passed over is not passed over again.
func TestOutcomesAreKept(t *testing.T) {
	t.Parallel()
	unreachable := errors.New("the database is unreachable")
	for name, tc := range map[string]struct {
		fail    func(f *fixture, last event.DeliveryID) (mend func())
		wantErr error
	}{
		"no memory": {fail: func(f *fixture, _ event.DeliveryID) func() {
			f.store.due = func(_ context.Context, call int) error {
				if call == 1 { // another's events came in between
					f.memory.TakeOver(clinicB, 64<<20)
				}
				return nil
			}
			return func() { f.memory.Give(clinicB, 64<<20) }
		}},
		"its time is up": {fail: func(f *fixture, _ event.DeliveryID) func() {
			f.assembly = time.Second
			f.store.due = func(ctx context.Context, call int) error {
				if call != 1 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			return func() {}
		}},
		"the store fails": {fail: func(f *fixture, last event.DeliveryID) func() {
			f.store.broken[last.Event] = unreachable
			return func() { delete(f.store.broken, last.Event) }
		}, wantErr: unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			billing := pulled(t, clinicA, "billing", divides)
			f := newFixture(t, billing)
			ids := f.publish(billing, pageBatch, 10) // the last comes with the next batch
			last := f.publishNumber(billing)
			mend := tc.fail(f, last)
			if tc.wantErr != nil {
				f.refused(request(billing, "", 100), tc.wantErr)
			} else {
				f.want(request(billing, "", 100), nil)
			}
			mend()
			f.store.due = nil
			for _, id := range ids {
				if r := f.get(id, clinicA); r.AttemptCount != 1 {
					t.Errorf("its %d attempts are kept, want 1", r.AttemptCount)
				}
			}
			f.want(request(billing, "", 100), []event.DeliveryID{last})
			f.calm()
		})
	}
}
