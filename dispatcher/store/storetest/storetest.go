// Package storetest states what package store promises as one suite of tests, which every implementation runs. It knows
// the interfaces only; a Harness tells it how to open a store, to cut its power, and to let time pass.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Harness makes a place for a new, empty store. It is removed when the test ends.
type Harness func(t testing.TB, settings Settings) Place

// Settings of the stores in a place.
type Settings struct {
	// Now is the time that the store goes by.
	Now func() time.Time
	// Delivered and Failed are how long finished deliveries are kept.
	Delivered, Failed time.Duration
	// Registerer takes the metrics of the store; nil for none.
	Registerer prometheus.Registerer
}

// Place is where one store is kept.
type Place struct {
	// Open opens the store that is kept here. The suite closes it.
	Open func() (store.Store, error)
	// Crash makes an image of what is durable now, to which the place's next Open goes. The open store is closed after
	// that, which must not change the image. Nil if the implementation cannot: its crash tests are skipped.
	Crash func()
	// Kills is set if Crash kills what the open store works on, so that calls under way fail.
	Kills bool
	// Expire makes an open store drop what its retention does not keep.
	Expire func(s store.Store) error
	// Fill makes the open store find its volume full, or not any more. Nil if the implementation cannot.
	Fill func(s store.Store, full bool)
	// Measure makes an open store look at its backlog, for its metrics. Nil if the implementation has none.
	Measure func(s store.Store) error
	// Shared is set if several stores may have the place open at once, and divide the work.
	Shared bool
}

// Run runs the suite.
func Run(t *testing.T, harness Harness) {
	for _, group := range []struct {
		name  string
		make  func(*testing.T, Harness) *fixture
		tests map[string]func(*fixture)
	}{
		{"Append", newFixture, appendTests}, {"Record", newFixture, recordTests}, {"Settle", newFixture, settleTests}, {"Due", newFixture, dueTests},
		{"Query", newFixture, queryTests}, {"Replay", newFixture, replayTests}, {"Retention", newFixture, retentionTests},
		{"Totals", newFixture, totalsTests}, {"Lifecycle", newFixture, lifecycleTests}, {"Full", newFixture, fullTests},
		{"Schedule", newFixture, scheduleTests}, {"Model", newFixture, modelTests}, {"Metrics", newMeasured, metricsTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			for name, test := range group.tests {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(group.make(t, harness))
				})
			}
		})
	}
}

// start of every test: half past, so that an hour does not turn by accident.
var start = time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC)

const (
	keepDelivered = 24 * time.Hour
	keepFailed    = 720 * time.Hour
)

// fixture is a store under test.
type fixture struct {
	*testing.T
	store.Store
	ctx   context.Context
	clock *Clock
	place Place
	next  int
	// registry has the store's metrics.
	registry *prometheus.Registry

	owner  *owner
	disown func()
}

// Backlogs is that of every shard.
func (f *fixture) Backlogs(ctx context.Context, yield func(delivery.Backlog) error) error {
	for shard := range delivery.Shards {
		if err := f.Store.Backlogs(ctx, shard, yield); err != nil {
			return err
		}
	}
	return nil
}

func newFixture(t *testing.T, harness Harness) *fixture {
	t.Helper()
	f := &fixture{T: t, ctx: t.Context(), clock: NewClock(start)}
	f.place = harness(t, f.settings())
	f.open()
	t.Cleanup(func() { f.close() })
	return f
}

func (f *fixture) settings() Settings {
	return Settings{Now: f.clock.Now, Delivered: keepDelivered, Failed: keepFailed}
}

// newMeasured is newFixture with a registry, which has room for one open store.
func newMeasured(t *testing.T, harness Harness) *fixture {
	t.Helper()
	f := &fixture{T: t, ctx: t.Context(), clock: NewClock(start), registry: prometheus.NewRegistry()}
	settings := f.settings()
	settings.Registerer = f.registry
	f.place = harness(t, settings)
	f.open()
	t.Cleanup(func() { f.close() })
	return f
}

func (f *fixture) open() {
	f.Helper()
	s, err := f.place.Open()
	if err != nil {
		f.Fatalf("Open: %v", err)
	}
	f.Store = s
	f.owner, f.disown = own(f, s)
}

func (f *fixture) close() {
	f.Helper()
	f.disown()
	if err := f.Store.Close(); err != nil {
		f.Errorf("Close: %v", err)
	}
}

func (f *fixture) reopen() {
	f.Helper()
	f.close()
	f.open()
}

// crash cuts the power.
func (f *fixture) crash() {
	f.Helper()
	if f.place.Crash == nil {
		f.Skip("the implementation cannot simulate a crash")
	}
	f.place.Crash()
	f.reopen()
}

func (f *fixture) expire() {
	f.Helper()
	if err := f.place.Expire(f.Store); err != nil {
		f.Fatalf("Expire: %v", err)
	}
}

const clinicA, clinicB = "clinic-a", "clinic-b"

// subscription of a namespace.
func subscription(namespace, name string) delivery.Subscription {
	return delivery.Subscription{Key: event.NewSubscriptionKey(namespace + "/" + name), Tenant: namespace, Name: name}
}

// newEvent has the given content, and matches subs.
func newEvent(namespace, id, content string, subs ...delivery.Subscription) store.NewEvent {
	sum := sha256.Sum256([]byte(content))
	e := store.NewEvent{
		Fanout: delivery.Fanout{Event: &delivery.Event{
			Tenant: namespace, ID: id, Type: "patient.created", Body: []byte(`{"id":"` + id + `","data":"` + content + `"}`),
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		}},
		Digest: [16]byte(sum[:16]),
	}
	for i := range subs {
		e.Subscriptions = append(e.Subscriptions, &subs[i])
	}
	return e
}

// Append appends events, and returns each delivery that came of them.
func (f *fixture) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.PendingDelivery, error) {
	answers, fanouts, err := f.Store.Append(ctx, events)
	var deliveries []delivery.PendingDelivery
	for i := range fanouts {
		if len(fanouts[i].Subscriptions) == 0 {
			f.Errorf("event %s caused no delivery, and is among the fan-outs", fanouts[i].Event.ID)
		}
		for _, sub := range fanouts[i].Subscriptions {
			deliveries = append(deliveries, fanouts[i].Delivery(sub))
		}
	}
	return answers, deliveries, err
}

// publish appends one event, which must be accepted.
func (f *fixture) publish(namespace, id string, subs ...delivery.Subscription) []delivery.PendingDelivery {
	f.Helper()
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{newEvent(namespace, id, id, subs...)})
	if err != nil {
		f.Fatalf("Append(%s): %v", id, err)
	}
	want := []store.Accepted{{ID: id, Deliveries: len(subs)}}
	if diff := cmp.Diff(want, answers); diff != "" || len(deliveries) != len(subs) {
		f.Fatalf("Append(%s) gave %d deliveries; answers (-want +got):\n%s", id, len(deliveries), diff)
	}
	return deliveries
}

// one publishes an event that one subscription matches, and advances the clock a little.
func (f *fixture) one(sub delivery.Subscription) delivery.PendingDelivery {
	f.Helper()
	f.next++
	f.clock.Advance(time.Millisecond)
	return f.publish(sub.Tenant, fmt.Sprintf("evt-%d", f.next), sub)[0]
}

func (f *fixture) record(outcomes ...delivery.Outcome) {
	f.Helper()
	outcomes = slices.Clone(outcomes)
	for i := range outcomes {
		outcomes[i].Epoch = f.epoch(outcomes[i].Delivery)
	}
	if err := f.Record(f.ctx, outcomes); err != nil {
		f.Fatalf("Record: %v", err)
	}
}

// attempt is the delivery's next one, at the present time.
func (f *fixture) attempt(d delivery.PendingDelivery, status int) *delivery.Attempt {
	a := &delivery.Attempt{Number: d.Attempts + 1, Started: f.clock.Now(), Duration: 20 * time.Millisecond, StatusCode: status}
	if status < 200 || status > 299 {
		a.Reason = delivery.ReasonStatusCode
	}
	return a
}

func (f *fixture) delivered(d delivery.PendingDelivery) delivery.Outcome {
	return delivery.Outcome{Delivery: d, Attempt: f.attempt(d, 204), State: delivery.Delivered, Epoch: f.epoch(d)}
}

func (f *fixture) failed(d delivery.PendingDelivery) delivery.Outcome {
	return delivery.Outcome{Delivery: d, Attempt: f.attempt(d, 500), State: delivery.Failed, Epoch: f.epoch(d)}
}

func (f *fixture) cancelled(d delivery.PendingDelivery) delivery.Outcome {
	return delivery.Outcome{Delivery: d, State: delivery.Cancelled, Epoch: f.epoch(d)}
}

// retry records a failed attempt, and returns the delivery as it is pending then.
func (f *fixture) retry(d delivery.PendingDelivery, after time.Duration) delivery.PendingDelivery {
	f.Helper()
	o := delivery.Outcome{Delivery: d, Attempt: f.attempt(d, 503), State: delivery.Pending, Due: f.clock.Now().Add(after)}
	f.record(o)
	d.Due, d.Attempts = o.Due, d.Attempts+1
	return d
}

// pending returns all of sub's pending deliveries, in their order.
func (f *fixture) pending(sub delivery.Subscription) []delivery.PendingDelivery {
	f.Helper()
	found, _, more, err := f.Due(f.ctx, sub.Key, delivery.Position{}, farFuture, 1<<20, nil)
	if err != nil || more {
		f.Fatalf("Due: more=%t, err=%v", more, err)
	}
	return found
}

var farFuture = start.AddDate(50, 0, 0)

func (f *fixture) get(d event.DeliveryID, namespace string) store.Record {
	f.Helper()
	r, err := f.Get(f.ctx, namespace, d)
	if err != nil {
		f.Fatalf("Get(%s): %v", d, err)
	}
	return r
}

func (f *fixture) list(q store.Query) []store.Record {
	f.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	records, err := f.List(f.ctx, q)
	if err != nil {
		f.Fatalf("List: %v", err)
	}
	return records
}

func (f *fixture) counts(sub delivery.Subscription) delivery.Counts {
	f.Helper()
	c, err := f.Counts(f.ctx, sub.Key)
	if err != nil {
		f.Fatalf("Counts: %v", err)
	}
	return c
}

// same compares values of the packages' types; times by the moment they mean, events by what they carry, and no marks.
func (f *fixture) same(what string, want, got any) {
	f.Helper()
	if diff := cmp.Diff(want, got, compared...); diff != "" {
		f.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var compared = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmpopts.IgnoreUnexported(delivery.Event{}),
	cmpopts.IgnoreFields(delivery.PendingDelivery{}, "Mark"),
	cmpopts.EquateEmpty(),
}

// bare are the deliveries without their events, which may be there or not.
func bare(deliveries ...delivery.PendingDelivery) []delivery.PendingDelivery {
	var all []delivery.PendingDelivery
	for _, d := range deliveries {
		d.Event = nil
		all = append(all, d)
	}
	return all
}
