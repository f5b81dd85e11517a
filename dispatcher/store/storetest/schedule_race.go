package storetest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// race is one key that is planned twice, cancelled and started, all at once.
type race struct {
	key  plan.Key
	name string

	mu        sync.Mutex
	planned   []event.DeliveryID
	cancelled bool // acknowledged
}

// known returns what was planned, and whether its cancel was acknowledged before.
func (r *race) known() (planned []event.DeliveryID, cancelled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.planned[:len(r.planned):len(r.planned)], r.cancelled
}

// testPlanRace publishes, cancels and starts from many goroutines at once: nothing starts once its cancel is acknowledged,
// and nothing that was cancelled is pending in the end.
func testPlanRace(f *fixture) {
	const races, atOnce = 60, 4 // goroutines for each thing that is done
	sub := subscription(clinicA, "sms")
	all := make([]*race, races)
	for i := range all {
		all[i] = &race{key: keyOf(f, fmt.Sprint("key-", i)), name: fmt.Sprint("race-", i)}
	}
	parallel(4*atOnce, func(i int) {
		for n := i / 4; n < races && !f.Failed(); n += atOnce {
			r := all[n]
			switch i % 4 {
			case 0, 1:
				r.plans(f, sub, i%4+1)
			case 2:
				r.cancels(f, sub)
			default:
				r.starts(f)
			}
		}
	})
	for _, r := range all {
		for _, id := range r.planned {
			f.starts(id, false)
		}
	}
	if left := f.pending(sub); len(left) > 0 {
		f.Errorf("%d are pending, although all were cancelled", len(left))
	}
}

func (r *race) append(f *fixture, e store.NewEvent) bool {
	_, _, err := f.Append(f.ctx, []store.NewEvent{e})
	if err != nil {
		f.Errorf("Append: %v", err)
	}
	return err == nil
}

func (r *race) plans(f *fixture, sub delivery.Subscription, minute int) {
	e := planEvent(sub, fmt.Sprintf("%s-plan-%d", r.name, minute), planFor(r.key, minute, start))
	if r.append(f, e) {
		r.mu.Lock()
		r.planned = append(r.planned, event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key})
		r.mu.Unlock()
	}
}

func (r *race) cancels(f *fixture, sub delivery.Subscription) {
	for range 3 { // later, now and then
		if planned, _ := r.known(); len(planned) > 0 {
			break
		}
		if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, fmt.Sprint(r.name, "-other"), "x")}); err != nil {
			f.Errorf("Append: %v", err)
		}
	}
	if r.append(f, cancelEvent(sub, r.name+"-cancel", r.key, 3)) {
		r.mu.Lock()
		r.cancelled = true
		r.mu.Unlock()
	}
}

// starts calls Start until the cancel was acknowledged.
func (r *race) starts(f *fixture) {
	for !f.Failed() {
		planned, cancelled := r.known()
		for _, id := range planned {
			started, err := f.Start(f.ctx, delivery.PendingDelivery{ID: id})
			if err != nil {
				f.Errorf("Start: %v", err)
			}
			if started && cancelled {
				f.Errorf("%s started after its cancel was acknowledged", id)
			}
		}
		r.startsRead(f)
		if cancelled {
			return
		}
	}
}

// startsRead starts what it read before, when the cancel has been acknowledged.
func (r *race) startsRead(f *fixture) {
	read := f.pending(subscription(clinicA, "sms"))
	planned, cancelled := r.known()
	if !cancelled {
		return
	}
	for _, d := range read {
		if !slices.Contains(planned, d.ID) {
			continue
		}
		if started, err := f.Start(f.ctx, d); err != nil || started {
			f.Errorf("Start gave %t, %v, for a delivery that was read before its cancel was acknowledged", started, err)
		}
	}
}

// testReplaceRace starts a delivery while a later event of its key is appended: either it started and stays, or it was replaced
// and does not start.
func testReplaceRace(f *fixture) {
	const rounds = 150
	sub := subscription(clinicA, "sms")
	key := keyOf(f, "a")
	before := f.planned(sub, key, 1, start)
	for n := range rounds {
		e := planEvent(sub, fmt.Sprint("later-", n), planFor(key, n+2, start))
		var started bool
		parallel(2, func(i int) {
			var err error
			if i == 0 {
				started, err = f.Start(f.ctx, before)
			} else {
				_, _, err = f.Append(f.ctx, []store.NewEvent{e})
			}
			if err != nil {
				f.Errorf("Start and Append: %v", err)
			}
		})
		if started {
			f.stands(before.ID, clinicA, delivery.Pending, "")
			f.record(f.delivered(before))
		} else {
			f.stands(before.ID, clinicA, delivery.Cancelled, delivery.ReasonReplaced)
		}
		before = f.pendingAs(sub, event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key})
	}
}
