package storetest

import (
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// keyStory is what happens to one key of a subscription. Its events are named by their ids.
type keyStory struct {
	*fixture
	sub delivery.Subscription
	key plan.Key
	ids map[string]event.DeliveryID
}

type keyStep func(*keyStory)

// id of an event of this story.
func (k *keyStory) id(name string) string { return k.sub.Name + ": " + name }

// plans: an event of that minute plans a delivery.
func plans(id string, minute int) keyStep {
	return func(k *keyStory) {
		k.ids[id] = k.accept(k.sub, planEvent(k.sub, k.id(id), planFor(k.key, minute, start.Add(time.Hour))))[0]
	}
}

// skips: an event of that minute plans nothing, because its time has passed.
func skips(id string, minute int) keyStep {
	return func(k *keyStory) {
		p := store.Plan{Key: k.key, Timestamp: timestamp(minute), Decision: plan.Decision{Reason: plan.Past}}
		k.ids[id] = k.accept(k.sub, planEvent(k.sub, k.id(id), p))[0]
	}
}

// cancels: an event of that minute cancels.
func cancels(id string, minute int) keyStep {
	return func(k *keyStory) { k.accept(k.sub, cancelEvent(k.sub, k.id(id), k.key, minute)) }
}

// both: an event of that minute plans and cancels.
func both(id string, minute int) keyStep {
	return func(k *keyStory) {
		e := planEvent(k.sub, k.id(id), planFor(k.key, minute, start.Add(time.Hour)))
		e.Cancels = cancelEvent(k.sub, k.id(id), k.key, minute).Cancels
		k.ids[id] = k.accept(k.sub, e)[0]
	}
}

// begins: the delivery starts, or does not.
func begins(id string, want bool) keyStep {
	return func(k *keyStory) { k.starts(k.ids[id], want) }
}

// ends: an outcome of the delivery is recorded.
func ends(id string, state delivery.State) keyStep {
	return func(k *keyStory) {
		for _, d := range k.pending(k.sub) {
			if d.ID == k.ids[id] {
				k.record(k.outcomeOf(d, state))
				return
			}
		}
		k.Errorf("the delivery of %s is not pending", id)
	}
}

// outcomeOf is an outcome with the state that follows, of an attempt that takes a while.
func (f *fixture) outcomeOf(d delivery.PendingDelivery, state delivery.State) delivery.Outcome {
	o := delivery.Outcome{Delivery: d, State: state, Epoch: f.epoch(d)}
	switch state {
	case delivery.Delivered:
		o.Attempt = f.attempt(d, 204)
	case delivery.Failed:
		o.Attempt = f.attempt(d, 500)
	case delivery.Cancelled:
	case delivery.Pending:
		o.Attempt, o.Due = f.attempt(d, 503), f.clock.Now().Add(time.Minute)
	}
	return o
}

func reopens(k *keyStory) { k.reopen() }

// testPlanKeys tells stories of one key. A delivery that is not wanted must not exist.
func testPlanKeys(f *fixture) {
	const (
		pending   = "Pending"
		replaced  = "Cancelled Replaced"
		cancelled = "Cancelled CancelledByEvent"
		past      = "Cancelled Past"
	)
	for name, test := range map[string]struct {
		steps []keyStep
		want  map[string]string
	}{
		"one":                      {[]keyStep{plans("a", 1)}, map[string]string{"a": pending}},
		"a later replaces":         {[]keyStep{plans("a", 1), plans("b", 2), begins("a", false), begins("b", true)}, map[string]string{"a": replaced, "b": pending}},
		"as late replaces":         {[]keyStep{plans("a", 1), plans("b", 1)}, map[string]string{"a": replaced, "b": pending}},
		"an older is ignored":      {[]keyStep{plans("a", 2), plans("b", 1), begins("a", true), begins("b", false)}, map[string]string{"a": pending}},
		"an older after a restart": {[]keyStep{plans("a", 2), reopens, plans("b", 1)}, map[string]string{"a": pending}},
		"many replacements":        {[]keyStep{plans("a", 1), plans("b", 2), plans("c", 3), plans("d", 2)}, map[string]string{"a": replaced, "b": replaced, "c": pending}},
		"a later that is past":     {[]keyStep{plans("a", 1), skips("b", 2), plans("c", 1)}, map[string]string{"a": replaced, "b": past}},
		"an older that is past":    {[]keyStep{plans("a", 2), skips("b", 1)}, map[string]string{"a": pending}},
		"past, then a later":       {[]keyStep{skips("a", 1), plans("b", 2)}, map[string]string{"a": past, "b": pending}},
		"cancelled":                {[]keyStep{plans("a", 1), cancels("x", 2), begins("a", false)}, map[string]string{"a": cancelled}},
		"cancelled at once":        {[]keyStep{plans("a", 1), cancels("x", 1)}, map[string]string{"a": cancelled}},
		"cancelled by an older":    {[]keyStep{plans("a", 2), cancels("x", 1), begins("a", true)}, map[string]string{"a": pending}},
		"cancelled, then a later":  {[]keyStep{plans("a", 1), cancels("x", 2), plans("b", 3)}, map[string]string{"a": cancelled, "b": pending}},
		"cancelled, then an older": {[]keyStep{plans("a", 1), cancels("x", 3), plans("b", 2)}, map[string]string{"a": cancelled}},
		"cancelled twice":          {[]keyStep{plans("a", 1), cancels("x", 2), cancels("y", 4), plans("b", 3)}, map[string]string{"a": cancelled}},
		"a cancel of nothing":      {[]keyStep{cancels("x", 2), plans("a", 1), plans("b", 3)}, map[string]string{"b": pending}},
		"of nothing, restarted":    {[]keyStep{cancels("x", 2), reopens, plans("a", 1)}, map[string]string{}},
		"plans and cancels":        {[]keyStep{plans("a", 1), both("b", 2), plans("c", 1)}, map[string]string{"a": cancelled}},
		"plans and cancels first":  {[]keyStep{both("a", 2), plans("b", 1)}, map[string]string{}},
		"started is not replaced":  {[]keyStep{plans("a", 1), begins("a", true), plans("b", 2)}, map[string]string{"a": pending, "b": pending}},
		"started is cancelled":     {[]keyStep{plans("a", 1), begins("a", true), cancels("x", 2), begins("a", false)}, map[string]string{"a": cancelled}},
		"started, older cancel":    {[]keyStep{plans("a", 2), begins("a", true), cancels("x", 1), begins("a", true)}, map[string]string{"a": pending}},
		"retried is not replaced":  {[]keyStep{plans("a", 1), begins("a", true), ends("a", delivery.Pending), reopens, plans("b", 2)}, map[string]string{"a": pending, "b": pending}},
		"a cancel ends all that are pending": {
			[]keyStep{plans("a", 1), begins("a", true), ends("a", delivery.Pending), plans("b", 2), cancels("x", 3), begins("a", false), begins("b", false)},
			map[string]string{"a": cancelled, "b": cancelled},
		},
		"an older after the end":   {[]keyStep{plans("a", 2), begins("a", true), ends("a", delivery.Delivered), plans("b", 1)}, map[string]string{"a": "Delivered"}},
		"a later after the end":    {[]keyStep{plans("a", 2), begins("a", true), ends("a", delivery.Failed), plans("b", 3)}, map[string]string{"a": "Failed", "b": pending}},
		"a cancel after the end":   {[]keyStep{plans("a", 1), begins("a", true), ends("a", delivery.Delivered), cancels("x", 3), plans("b", 2)}, map[string]string{"a": "Delivered"}},
		"an older than the cancel": {[]keyStep{plans("a", 1), begins("a", true), ends("a", delivery.Delivered), reopens, cancels("x", 3), reopens, plans("b", 2)}, map[string]string{"a": "Delivered"}},
	} {
		sub := subscription(clinicA, name)
		k := &keyStory{fixture: f, sub: sub, key: keyOf(f, name), ids: map[string]event.DeliveryID{}}
		for _, step := range test.steps {
			step(k)
		}
		got := map[string]string{}
		for _, r := range f.list(store.Query{Tenant: clinicA, Subscription: name}) {
			got[r.EventID] = r.State.String()
			if r.Reason != "" {
				got[r.EventID] += " " + string(r.Reason)
			}
		}
		want := map[string]string{}
		for id, text := range test.want {
			want[k.id(id)] = text
		}
		f.same(name, want, got)
	}
}
