package operational

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an announcer with what it works on: a table in which sub has a monitor in each of the tenants a to e, and a store
// that remembers ids.
type fixture struct {
	*Announcer
	table *routing.Table

	mu      sync.Mutex
	stored  []Publication
	records map[event.DeliveryID]store.Record
	fail    func(p Publication) error
	tries   int
}

func keyOf(tenant, name string) event.SubscriptionKey {
	return event.NewSubscriptionKey(tenant + "/" + name)
}

func routeOf(tenant, name string, generation int64, keys signature.Keys, patterns ...event.Pattern) *routing.Route {
	return &routing.Route{
		Identity: tenant + "/" + name, Namespace: tenant, Name: name, Key: keyOf(tenant, name), Patterns: patterns,
		Endpoint: &engine.Endpoint{Tenant: tenant, Generation: generation, Target: &egress.Target{Keys: keys}},
	}
}

func tableOf(t *testing.T, routes ...*routing.Route) *routing.Table {
	t.Helper()
	table, err := routing.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{records: map[event.DeliveryID]store.Record{}, fail: func(Publication) error { return nil }}
	var routes []*routing.Route
	for _, tenant := range []string{"a", "b", "c", "d", "e"} {
		routes = append(routes, routeOf(tenant, "sub", 1, nil, event.All), routeOf(tenant, "monitor", 1, nil, "eventflow.*"))
	}
	f.table = tableOf(t, append(routes, routeOf("alone", "monitor", 1, nil, event.All, "eventflow.*"))...)
	var err error
	f.Announcer, err = New(Options{
		Table: func() *routing.Table { return f.table }, Now: time.Now, Registerer: prometheus.NewRegistry(),
		Get: func(_ context.Context, tenant string, id event.DeliveryID) (store.Record, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			r, ok := f.records[id]
			if !ok || r.Tenant != tenant {
				return store.Record{}, store.ErrNotFound
			}
			return r, nil
		},
		Publish: f.publish,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) publish(_ context.Context, p Publication) (store.Accepted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if err := f.fail(p); err != nil {
		return store.Accepted{}, err
	}
	if slices.ContainsFunc(f.stored, func(q Publication) bool { return q.ID == p.ID && q.Tenant == p.Tenant }) {
		return store.Accepted{ID: p.ID, Repeated: true}, nil
	}
	f.stored = append(f.stored, p)
	return store.Accepted{ID: p.ID}, nil
}

func (f *fixture) failWith(fail func(Publication) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// take returns what was stored, and forgets it.
func (f *fixture) take() []Publication {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.stored
	f.stored = nil
	return all
}

// start runs the announcer in the test's bubble; the result stops it.
func (f *fixture) start(t *testing.T) func() {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

func (f *fixture) counted(t event.Type, result string) float64 {
	return testutil.ToFloat64(f.metrics.events.WithLabelValues(string(t), result))
}

// failing is a run of failures of the subscription of its own.
func failing(tenant, name string, run int) engine.Happening {
	return engine.Happening{
		Type: event.EndpointFailing, Subscription: keyOf(tenant, name), At: time.Now(), Run: time.UnixMilli(int64(run)),
		Attempts: 10, Reason: delivery.ReasonTimeout,
	}
}

// givenUp is a delivery of the given type that failed.
func (f *fixture) givenUp(tenant string, n int, typ event.Type, attempts ...delivery.Attempt) engine.Happening {
	id := event.DeliveryID{Event: event.NewKey(time.UnixMilli(int64(n)), tenant, "evt"), Subscription: keyOf(tenant, "sub")}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[id] = store.Record{
		ID: id, EventID: fmt.Sprintf("evt_%d", n), Type: typ, Tenant: tenant, Subscription: "sub", State: delivery.Failed,
		AttemptCount: len(attempts), Attempts: attempts,
	}
	return engine.Happening{Type: event.DeliveryFailed, Subscription: id.Subscription, Delivery: id, At: time.Now(), Attempts: len(attempts)}
}

func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func dataOf(t *testing.T, p Publication) Data {
	t.Helper()
	var d Data
	decoder := json.NewDecoder(strings.NewReader(string(p.Data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Errorf("data %s: %v", p.Data, err)
	}
	return d
}

// TestWhatIsSaid: an event says which subscription, why, and which delivery, and is of the subscription's tenant.
func TestWhatIsSaid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.start(t)()
		timeout := delivery.Attempt{Number: 1, Reason: delivery.ReasonTimeout}
		refused := delivery.Attempt{Number: 2, StatusCode: 503, Reason: delivery.ReasonStatusCode}
		for name, test := range map[string]struct {
			happened engine.Happening
			want     Data
		}{
			"failing": {failing("a", "sub", 1), Data{
				ResourceType: "WebhookSubscription", ResourceID: "sub", Action: "failing", Reason: "Timeout", Attempts: 10,
			}},
			"given up": {f.givenUp("a", 1, "patient.created", timeout, refused), Data{
				ResourceType: "WebhookDelivery", Action: "failed", Reason: "StatusCode", StatusCode: 503, Attempts: 2, EventID: "evt_1", EventType: "patient.created",
			}},
			"too old": {f.givenUp("a", 2, "lab.created"), Data{
				ResourceType: "WebhookDelivery", Action: "failed", Reason: ReasonExpired, EventID: "evt_2", EventType: "lab.created",
			}},
		} {
			f.Note(test.happened)
			advance(time.Second)
			all := f.take()
			if len(all) != 1 {
				t.Fatalf("%s: %d events", name, len(all))
			}
			test.want.Namespace, test.want.Subscription = "a", "sub"
			if test.happened.Type == event.DeliveryFailed {
				test.want.DeliveryID = test.happened.Delivery.String()
				test.want.ResourceID = test.want.DeliveryID
			}
			p := all[0]
			if got := dataOf(t, p); got != test.want {
				t.Errorf("%s: got %+v\nwant %+v", name, got, test.want)
			}
			if p.Tenant != "a" || p.About != keyOf("a", "sub") || p.Type != test.happened.Type || !p.Timestamp.Equal(test.happened.At) || event.CheckID(p.ID) != nil {
				t.Errorf("%s: published as %+v", name, p)
			}
		}
	})
}

// TestNothingEchoes: no event is about the delivery of an operational event, or for nobody but the subscription that it is
// about, or of a subscription that is gone.
func TestNothingEchoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.start(t)()
		for _, typ := range []event.Type{event.DeliveryFailed, event.EndpointFailing, "eventflow.later.type"} {
			f.Note(f.givenUp("a", 1, typ))
		}
		f.Note(failing("alone", "monitor", 1))
		f.Note(failing("a", "deleted", 1))
		lost := f.givenUp("a", 9, "patient.created")
		delete(f.records, lost.Delivery)
		f.Note(lost)
		advance(time.Minute)
		if all := f.take(); len(all) != 0 || f.tries != 0 {
			t.Errorf("published %+v", all)
		}
		f.waiting.add("b", &happening{Happening: failing("a", "sub", 1)}, time.Now()) // noted for another tenant
		f.Note(failing("a", "deleted", 1))
		f.called <- struct{}{}
		advance(time.Minute)
		if f.tries != 0 {
			t.Error("one tenant was told of another's subscription")
		}
		f.Note(failing("a", "monitor", 1)) // others do not hear of it: the fixture's publish would
		advance(time.Minute)
		if f.tries != 0 {
			t.Error("a monitor's own state was told to nobody else, and tried")
		}
	})
}

// TestRate: a subscription causes so many events at once and then one each so often; the newest of what waits goes, says how
// many it stands for, and nothing is left behind. Another subscription is not held back.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.start(t)()
		burst, each := rates[ofDelivery].burst, rates[ofDelivery].each
		for n := range burst + 30 {
			f.Note(f.givenUp("a", n+1, "patient.created"))
		}
		f.Note(failing("a", "sub", 1))
		f.Note(f.givenUp("b", 1, "patient.created"))
		advance(lookPause)
		if all := f.take(); len(all) != burst+2 {
			t.Errorf("%d events at once, want %d", len(all), burst+2)
		}
		advance(each + 2*lookPause)
		all := f.take()
		if len(all) != 1 {
			t.Fatalf("%d events after %v, want 1", len(all), each)
		}
		if d := dataOf(t, all[0]); d.EventID != fmt.Sprintf("evt_%d", burst+30) || d.Others != 29 {
			t.Errorf("after %v: %+v", each, d)
		}
		if got := f.counted(event.DeliveryFailed, resultJoined); got != 29 {
			t.Errorf("%v joined, want 29", got)
		}
		advance(24 * time.Hour)
		if f.take() != nil || f.waiting.any() || len(f.waiting.entries) != 0 || len(f.waiting.tenants) != 0 {
			t.Errorf("%v is still held", f.waiting.held())
		}
	})
}

// TestRepeated: what is told of again, by another process or after a restart, has the same id; what happens again has
// another.
func TestRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := func(h engine.Happening) string { return (&happening{Happening: h}).id() }
	first := failing("a", "sub", 1)
	again := first
	again.At, again.Attempts, again.Reason, again.Run = again.At.Add(time.Hour), 700, "Other", again.Run.Add(999*time.Microsecond)
	if id(first) != id(again) {
		t.Error("one run of failures has two ids")
	}
	gone := engine.Happening{Type: event.EndpointGone, Subscription: first.Subscription, Generation: 4, Run: first.Run}
	later, recovered, other := gone, first, first
	later.Generation = 5
	recovered.Type = event.EndpointRecovered
	other.Subscription = keyOf("b", "sub")
	given := f.givenUp("a", 1, "patient.created")
	replayed := given
	replayed.Since = time.UnixMilli(77)
	tried := given
	tried.Attempts++
	ids := []string{
		id(first), id(failing("a", "sub", 2)), id(gone), id(later), id(recovered), id(other), id(given), id(replayed), id(tried),
		id(f.givenUp("a", 2, "patient.created")),
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != 10 {
		t.Errorf("%d ids of 10 happenings", n)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.start(t)()
		f.Note(first)
		f.Note(again)
		advance(time.Second)
		if all := f.take(); len(all) != 1 || f.counted(event.EndpointFailing, resultRepeated) != 1 {
			t.Errorf("stored %+v", all)
		}
	})
}

var errFull = errors.New("the store is full")

// TestAStoreThatTakesNothing: an event waits for the store for an hour, and is then counted as dropped; a tenant that the
// store does not take anything of holds nobody back.
func TestAStoreThatTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.start(t)()
		f.failWith(func(p Publication) error {
			if p.Tenant == "a" {
				return errFull
			}
			return nil
		})
		f.Note(failing("a", "sub", 1))
		f.Note(f.givenUp("a", 1, "patient.created"))
		f.Note(failing("b", "sub", 1))
		advance(time.Second)
		if all := f.take(); len(all) != 1 || all[0].Tenant != "b" {
			t.Errorf("stored %+v", all)
		}
		advance(30 * time.Minute)
		f.failWith(func(Publication) error { return nil })
		advance(2 * retryPause)
		if all := f.take(); len(all) != 2 {
			t.Errorf("%d events once there was room, want 2", len(all))
		}
		f.failWith(func(Publication) error { return errFull })
		f.mu.Lock()
		f.tries = 0
		f.mu.Unlock()
		f.Note(failing("a", "sub", 2))
		advance(maxAge + 2*retryPause)
		if got := f.counted(event.EndpointFailing, resultDropped); got != 1 || f.tries > int(maxAge/retryPause)+2 {
			t.Errorf("%v dropped after %d tries", got, f.tries)
		}
		advance(24 * time.Hour)
		if f.waiting.any() || len(f.waiting.entries) != 0 {
			t.Errorf("%v is still held", f.waiting.held())
		}
	})
}

// TestRoom: what one tenant's subscriptions hold is bounded and counted, and leaves room to others, who are served in turn.
func TestRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		routes := []*routing.Route{routeOf("z", "monitor", 1, nil, "eventflow.*"), routeOf("b", "sub", 1, nil, event.All), routeOf("b", "monitor", 1, nil, "eventflow.*")}
		for n := range maxHeld {
			routes = append(routes, routeOf("z", fmt.Sprint("sub-", n), 1, nil, event.All))
		}
		f.table = tableOf(t, routes...)
		for n := range maxHeld {
			f.Note(failing("z", fmt.Sprint("sub-", n), 1))
		}
		if held := f.waiting.held(); held > maxHeld/2 || f.counted(event.EndpointFailing, resultDropped) < maxHeld/2 {
			t.Errorf("one tenant holds %v of %d, %v dropped", held, maxHeld, f.counted(event.EndpointFailing, resultDropped))
		}
		if n := len(f.waiting.entries); n > maxHeld/4+1 { // each has a rate and a happening
			t.Errorf("one tenant has %d rates", n)
		}
		f.Note(failing("b", "sub", 1))
		if _, h := f.waiting.next(); h == nil {
			t.Fatal("nothing to publish")
		}
		if tenant, _ := f.waiting.next(); tenant != "b" {
			t.Errorf("the second turn was that of %q", tenant)
		}
		if tenant, _ := f.waiting.next(); tenant != "" {
			t.Errorf("%q has a second event under way", tenant)
		}
	})
}

// TestTenantsThatHang: tenants for whose events the store waits, such as for their keys, have a bounded number of places, and
// once they were waited for, leave most of them to others.
func TestTenantsThatHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		routes := []*routing.Route{routeOf("b", "sub", 1, nil, event.All), routeOf("b", "monitor", 1, nil, "eventflow.*")}
		for n := range 3 * maxBusy {
			tenant := fmt.Sprint("locked-", n)
			routes = append(routes, routeOf(tenant, "sub", 1, nil, event.All), routeOf(tenant, "monitor", 1, nil, "eventflow.*"))
		}
		f.table = tableOf(t, routes...)
		var hanging, most atomic.Int32
		f.options.Publish = func(ctx context.Context, p Publication) (store.Accepted, error) {
			if p.Tenant == "b" {
				return f.publish(ctx, p)
			}
			most.Store(max(most.Load(), hanging.Add(1)))
			defer hanging.Add(-1)
			<-time.After(5 * time.Second)
			return store.Accepted{}, errFull
		}
		defer f.start(t)()
		for n := range 3 * maxBusy {
			f.Note(failing(fmt.Sprint("locked-", n), "sub", 1))
		}
		f.Note(failing("b", "sub", 1))
		advance(16 * time.Second)
		if all := f.take(); len(all) != 1 || most.Load() != maxBusy {
			t.Errorf("%d events of b were stored; %d hung at once, want %d", len(all), most.Load(), maxBusy)
		}
		most.Store(0)
		for n := range 6 {
			advance(6*time.Second + 100*time.Millisecond)
			f.Note(f.givenUp("b", n+2, "patient.created"))
			synctest.Wait()
			if all := f.take(); len(all) != 1 {
				t.Errorf("%d events of b were stored at once, while %d hang", len(all), hanging.Load())
			}
		}
		if most.Load() != maxRetried {
			t.Errorf("%d hung at once, want %d", most.Load(), maxRetried)
		}
	})
}

// TestStop: what waits at the stop is tried once, whatever the rates, and what is not taken is counted.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		stop := f.start(t)
		burst := rates[ofEndpoint].burst
		for n := range burst + 3 {
			f.Note(failing("a", "sub", n+1))
		}
		synctest.Wait()
		f.failWith(func(p Publication) error {
			if p.Tenant == "b" {
				return errFull
			}
			return nil
		})
		f.Note(failing("b", "sub", 1))
		stop()
		all := f.take()
		if len(all) != burst+1 || dataOf(t, all[burst]).Others != 2 {
			t.Errorf("%d stored, want %d: %+v", len(all), burst+1, all[len(all)-1])
		}
		if got := f.counted(event.EndpointFailing, resultDropped); got != 1 {
			t.Errorf("%v dropped, want 1", got)
		}
	})
}

// TestKeys: another list of keys is told of, with how many sign, and another URL, a subscription that waits or is new, and
// the same keys read again are not.
func TestKeys(t *testing.T) {
	t.Parallel()
	key := func(text string) *signature.Key {
		k, err := signature.ParseKey([]byte(strings.Repeat(text, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, test := range map[string]struct {
		before, now string // a letter for each key; "" for no target
		generation  int64
		want        int // active keys; 0 for nothing
	}{
		"added":          {"a", "ba", 2, 2},
		"removed":        {"ba", "b", 2, 1},
		"replaced":       {"a", "b", 2, 1},
		"turned":         {"ab", "ba", 2, 2},
		"something else": {"ab", "ab", 2, 0},
		"read again":     {"ab", "ab", 1, 0},
		"waits":          {"a", "", 2, 0},
		"waited":         {"", "b", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				defer f.start(t)()
				table := func(keys string, generation int64) *routing.Table {
					var all signature.Keys
					for _, letter := range keys {
						all = append(all, key(string(letter)))
					}
					sub := routeOf("a", "sub", generation, all, event.All)
					if keys == "" {
						sub.Endpoint.Target = nil
					}
					return tableOf(t, sub, routeOf("a", "monitor", 1, signature.Keys{key("m")}, "eventflow.*"))
				}
				before := table(test.before, 1)
				f.table = table(test.now, test.generation)
				f.Replaced(nil, before)
				f.Replaced(before, f.table)
				f.Replaced(before, f.table) // another replica
				advance(time.Second)
				all := f.take()
				if len(all) != min(test.want, 1) {
					t.Fatalf("told of %+v", all)
				}
				if test.want > 0 && (dataOf(t, all[0]).ActiveKeys != test.want || all[0].Type != event.KeyRotated || strings.Contains(string(all[0].Data), "aaaa")) {
					t.Errorf("said %s", all[0].Data)
				}
			})
		})
	}
}
