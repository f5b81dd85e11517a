package pull

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clinicA, clinicB = "clinic-a", "clinic-b"

// fixture is a Puller over a store in memory, with its own clock.
type fixture struct {
	*testing.T
	*Puller
	store    *late
	offset   atomic.Int64 // of the clock
	mu       sync.Mutex
	table    *routing.Table
	finished map[string]int64
	givenUp  []event.DeliveryID
	memory   *budget.Budget
	next     int
}

// late is a store that hides some pending deliveries for a while, as if they were still being stored.
type late struct {
	store.Store
	mu     sync.Mutex
	hidden map[event.Key]bool
	broken map[event.Key]error
	due    func(ctx context.Context, call int) error // if set, is called before each read
	calls  int
}

func (l *late) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, delivery.Position, bool, error) {
	if l.due != nil {
		l.calls++
		if err := l.due(ctx, l.calls-1); err != nil {
			return into, delivery.Position{}, false, err
		}
	}
	found, next, more, err := l.Store.Due(ctx, sub, from, until, limit, into)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range found {
		if l.broken[found[i].ID.Event] != nil {
			found[i].Event = nil
		}
	}
	return slices.DeleteFunc(found, func(d delivery.PendingDelivery) bool { return l.hidden[d.ID.Event] }), next, more, err
}

func (l *late) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.broken[key]; err != nil {
		return nil, err
	}
	return l.Store.Event(ctx, key)
}

func newFixture(t *testing.T, routes ...*routing.Route) *fixture {
	t.Helper()
	return newFixtureWith(t, func(*Options) {}, routes...)
}

// newFixtureWith is newFixture with options that with changed.
func newFixtureWith(t *testing.T, with func(*Options), routes ...*routing.Route) *fixture {
	t.Helper()
	f := &fixture{T: t, finished: map[string]int64{}, memory: budget.New(64 << 20)}
	opened, err := pebble.Open("store", pebble.Options{Logger: logr.Discard(), FS: vfs.NewMem(), Now: f.now, FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	f.store = &late{Store: opened, hidden: map[event.Key]bool{}, broken: map[event.Key]error{}}
	maker, err := payload.New(payload.Options{Memory: f.memory, Now: f.store.Now})
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Store: f.store, Maker: maker, Memory: f.memory, Now: f.store.Now, Logger: logr.Discard(),
		Routes: func() *routing.Table { f.mu.Lock(); defer f.mu.Unlock(); return f.table },
		Finished: func(tenant string, deliveries, _ int64) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.finished[tenant] += deliveries
		},
		Changed: func(event.SubscriptionKey) {},
		GivenUp: func(id event.DeliveryID) { f.givenUp = append(f.givenUp, id) },
	}
	with(&options)
	if f.Puller, err = New(options); err != nil {
		t.Fatal(err)
	}
	f.assembly = time.Minute // a busy machine takes its time
	f.use(routes...)
	return f
}

func (f *fixture) now() time.Time { return time.Now().Add(time.Duration(f.offset.Load())) }

func (f *fixture) advance(d time.Duration) { f.offset.Add(int64(d)) }

func (f *fixture) use(routes ...*routing.Route) {
	f.Helper()
	table, err := routing.NewTable(routes)
	if err != nil {
		f.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table = table
}

// key signs the deliveries of a namespace.
func key(namespace string) string { return namespace + "-signs-with-24-bytes-or-more" }

// pulled is the route of a subscription that is pulled, changed by with.
func pulled(t *testing.T, namespace, name string, with func(*routing.Entry)) *routing.Route {
	t.Helper()
	e := &routing.Entry{
		Identity: namespace + "/" + name, Namespace: namespace, Name: name, Generation: 1, Patterns: []event.Pattern{"*"},
		URL: egress.Nowhere, Pull: true, Keys: [][]byte{[]byte(key(namespace))}, Timeout: 30 * time.Second, MaxInFlight: 32,
		Retry: routing.Retry{Initial: 30 * time.Second, Max: 2 * time.Hour, MaxAge: 72 * time.Hour, Factor: 4},
	}
	if with != nil {
		with(e)
	}
	route, err := e.Route()
	if err != nil {
		t.Fatal(err)
	}
	return route
}

func newEvent(of *routing.Route, id string, size int) store.NewEvent {
	return store.NewEvent{
		Fanout: delivery.Fanout{Event: &delivery.Event{
			Tenant: of.Tenant(), ID: id, Type: "patient.created",
			Body: fmt.Appendf(nil, `{"id":%q,"type":"patient.created","timestamp":"2026-01-02T03:04:05.000Z","data":{"resourceId":%q,"note":%q}}`, id, id, strings.Repeat("x", size)),
		}, Subscriptions: []*delivery.Subscription{of.Subscription}},
		Digest: [16]byte([]byte(fmt.Sprintf("%-16s", id))[:16]),
	}
}

// publish stores n events of some size, one after the other, and returns their deliveries.
func (f *fixture) publish(of *routing.Route, n, size int) []event.DeliveryID {
	f.Helper()
	var ids []event.DeliveryID
	for range n {
		f.next++
		e := newEvent(of, fmt.Sprintf("evt-%04d", f.next), size)
		_, fanouts, err := f.store.Append(f.Context(), []store.NewEvent{e})
		if err != nil {
			f.Fatal(err)
		}
		f.Stored(fanouts)
		ids = append(ids, event.DeliveryID{Event: fanouts[0].Event.Key, Subscription: of.Key})
	}
	return ids
}

// answer is what a consumer reads of a page.
type answer struct {
	Deliveries []view `json:"deliveries"`
	Cursor     string `json:"cursor"`
}

func (a *answer) ids() []string {
	ids := []string{}
	for _, d := range a.Deliveries {
		ids = append(ids, d.ID)
	}
	return ids
}

func texts(ids []event.DeliveryID) []string {
	all := []string{}
	for _, id := range ids {
		all = append(all, id.String())
	}
	return all
}

func request(of *routing.Route, after string, limit int) Request {
	return Request{Tenant: of.Tenant(), Subscription: of.Name, After: after, Handled: -1, Limit: limit}
}

// take makes a call that must succeed.
func (f *fixture) take(r Request) (a answer) {
	f.Helper()
	page, err := f.Pull(f.Context(), r)
	if err != nil {
		f.Fatalf("Pull: %v", err)
	}
	return f.read(page)
}

// read reads a page, and releases it.
func (f *fixture) read(page *Page) (a answer) {
	f.Helper()
	defer page.Release()
	if err := json.Unmarshal(page.Body, &a); err != nil {
		f.Fatalf("%v: %s", err, page.Body)
	}
	if len(a.Deliveries) != page.Count || (a.Cursor == "") != (page.Count == 0) {
		f.Errorf("%d deliveries are counted as %d, with cursor %q", len(a.Deliveries), page.Count, a.Cursor)
	}
	return a
}

func (f *fixture) want(r Request, ids []event.DeliveryID) answer {
	f.Helper()
	a := f.take(r)
	if !slices.Equal(a.ids(), texts(ids)) {
		f.Errorf("got %q, want %q", a.ids(), texts(ids))
	}
	return a
}

func (f *fixture) refused(r Request, want error) {
	f.Helper()
	page, err := f.Pull(f.Context(), r)
	if err == nil {
		page.Release()
	}
	if !errors.Is(err, want) {
		f.Errorf("got %v, want %v", err, want)
	}
}

func (f *fixture) get(id event.DeliveryID, tenant string) store.Record {
	f.Helper()
	r, err := f.store.Get(f.Context(), tenant, id)
	if err != nil {
		f.Fatal(err)
	}
	return r
}

func (f *fixture) calm() {
	f.Helper()
	if n := f.memory.Used(); n != 0 {
		f.Errorf("%d bytes are still charged", n)
	}
	if n := f.calls.Used(); n != 0 {
		f.Errorf("%d calls are still counted", n)
	}
}

// TestOrderAndAcknowledgement: pages come in the order of acceptance; what is not acknowledged comes again; a cursor acknowledges
// its page, once, with an attempt that says pulled.
func TestOrderAndAcknowledgement(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 5, 10)
	first := f.want(request(billing, "", 2), ids[:2])
	f.want(request(billing, "", 3), ids[:3]) // nothing was acknowledged
	second := f.want(request(billing, first.Cursor, 2), ids[2:4])
	f.want(request(billing, first.Cursor, 2), ids[2:4]) // the same again, as after a broken connection
	for i, id := range ids {
		r := f.get(id, clinicA)
		if done := r.State == delivery.Delivered; done != (i < 2) || done && (r.AttemptCount != 1 || !r.Attempts[0].Pulled()) {
			t.Errorf("delivery %d: %+v", i, r)
		}
	}
	f.want(request(billing, second.Cursor, 100), ids[4:])
	f.want(request(billing, first.Cursor, 100), ids[4:]) // an old one acknowledges nothing more
	if f.finished[clinicA] != 4 {
		t.Errorf("%d deliveries count as finished, want 4", f.finished[clinicA])
	}
	f.calm()
}

// TestHandled: a consumer may acknowledge the first deliveries of a page alone.
func TestHandled(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 4, 10)
	first := f.want(request(billing, "", 100), ids)
	r := request(billing, first.Cursor, 100)
	for _, handled := range []int{0, 3, 2} {
		r.Handled = handled
		f.want(r, ids[min(handled, 3)+btoi(handled == 2):])
	}
	r.Handled = 9
	f.want(r, nil)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestLateArrival: what was accepted before an answered delivery, and stored after the answer, is not acknowledged with it.
func TestLateArrival(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 3, 10)
	f.store.hidden[ids[1].Event] = true
	first := f.want(request(billing, "", 100), []event.DeliveryID{ids[0], ids[2]})
	delete(f.store.hidden, ids[1].Event)
	f.want(request(billing, first.Cursor, 100), ids[1:2])
	if r := f.get(ids[1], clinicA); r.State != delivery.Pending {
		t.Errorf("it is %v", r.State)
	}
}

// TestReplayedIsAnother: a cursor does not acknowledge the replay of what it was given for.
func TestReplayedIsAnother(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 1, 10)
	first := f.want(request(billing, "", 100), ids)
	if err := f.store.Cancel(t.Context(), clinicA, ids[0]); err != nil {
		t.Fatal(err)
	}
	again, err := f.store.Replay(t.Context(), clinicA, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	f.want(request(billing, first.Cursor, 100), []event.DeliveryID{again.ID})
	at := delivery.Position{Due: time.Unix(1, 0), Event: ids[0].Event}
	if later := (delivery.Position{Due: time.Unix(2, 0), Event: ids[0].Event}); fingerprintOf(at) == fingerprintOf(later) {
		t.Error("a delivery that is due again has the fingerprint that it had")
	}
}

// TestSigned: a receiver verifies a pulled delivery by its headers and its body, with its own namespace's key alone.
func TestSigned(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", func(e *routing.Entry) { e.Header = http.Header{"X-Team": {"billing"}} })
	f := newFixture(t, billing)
	ids := f.publish(billing, 1, 10)
	d := f.want(request(billing, "", 1), ids).Deliveries[0]
	header := http.Header{}
	for name, value := range d.Headers {
		header.Set(name, value)
	}
	body, err := base64.StdEncoding.DecodeString(d.Body)
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]error{clinicA: nil, clinicB: signature.ErrMismatch} {
		k, err := signature.ParseKey([]byte(key(namespace)))
		if err != nil {
			t.Fatal(err)
		}
		if err := (signature.Keys{k}).VerifyStandard(header, body, time.Now(), time.Minute); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", namespace, err, want)
		}
		if err := (signature.Keys{k}).VerifyBody(header, body); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", namespace, err, want)
		}
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Clinik-Event": "patient.created", "X-Clinik-Delivery-Id": ids[0].String(), "Webhook-Id": ids[0].String(),
		"X-Clinik-Attempt": "1", "X-Team": "billing", "Host": "", "Content-Length": "", "User-Agent": "",
	} {
		if header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, header.Get(name), want)
		}
	}
	if d.Attempt != 1 || d.Type != "patient.created" || !strings.Contains(string(body), "evt-0001") {
		t.Errorf("delivery %+v", d)
	}
}

// TestCursorRefused: what is not this subscription's cursor of today acknowledges nothing, and says so.
func TestCursorRefused(t *testing.T) {
	t.Parallel()
	billing, other := pulled(t, clinicA, "billing", nil), pulled(t, clinicA, "other", nil)
	again := pulled(t, clinicA, "billing", func(e *routing.Entry) { e.Identity = "made again" })
	foreign := pulled(t, clinicB, "billing", nil)
	f := newFixture(t, billing, other, foreign)
	ids := f.publish(billing, 1, 10)
	f.publish(other, 1, 10)
	f.publish(foreign, 1, 10)
	cursor := f.want(request(billing, "", 1), ids).Cursor
	changed := []byte(cursor)
	changed[40] ^= 1
	for name, tc := range map[string]struct {
		of    *routing.Route
		after string
		want  error
	}{
		"no cursor":            {billing, "x", ErrCursorInvalid},
		"changed":              {billing, string(changed), ErrCursorInvalid},
		"cut":                  {billing, cursor[:len(cursor)-4], ErrCursorInvalid},
		"too long":             {billing, strings.Repeat("A", 1<<16), ErrCursorInvalid},
		"another subscription": {other, cursor, ErrCursorForeign},
		"another namespace":    {foreign, cursor, ErrCursorForeign},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := f.Pull(t.Context(), request(tc.of, tc.after, 1))
			if err == nil {
				page.Release()
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	f.use(again)
	f.refused(request(again, cursor, 1), ErrCursorForeign)
	f.use(billing)
	f.advance(CursorAge + time.Minute)
	f.refused(request(billing, cursor, 1), ErrCursorExpired)
	if r := f.get(ids[0], clinicA); r.State != delivery.Pending {
		t.Errorf("it is %v", r.State)
	}
	f.calm()
}

// TestTenants: a subscription of the same name is another namespace's, and an event of another namespace is never answered.
func TestTenants(t *testing.T) {
	t.Parallel()
	ours, theirs := pulled(t, clinicA, "billing", nil), pulled(t, clinicB, "billing", nil)
	f := newFixture(t, ours, theirs)
	mine, foreign := f.publish(ours, 1, 10), f.publish(theirs, 1, 10)
	f.want(request(ours, "", 100), mine)
	f.want(request(theirs, "", 100), foreign)
	stray := newEvent(theirs, "evt-stray", 10) // cannot be
	stray.Subscriptions = []*delivery.Subscription{ours.Subscription}
	if _, _, err := f.store.Append(t.Context(), []store.NewEvent{stray}); err != nil {
		t.Fatal(err)
	}
	f.want(request(ours, "", 100), mine)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	push := pulled(t, clinicA, "push", func(e *routing.Entry) { e.Pull, e.URL = false, "https://a.example" })
	f := newFixture(t, billing, push)
	ids := f.publish(billing, 2, 10)
	f.refused(request(push, "", 1), ErrNotPulled)
	f.refused(Request{Tenant: clinicA, Subscription: "none", Limit: 1}, ErrNotFound)
	cursor := f.want(request(billing, "", 1), ids[:1]).Cursor
	for name, tc := range map[string]struct {
		change func(*routing.Entry)
		want   error
	}{
		"suspended":    {func(e *routing.Entry) { e.Suspended = true }, ErrSuspended},
		"not accepted": {func(e *routing.Entry) { e.Waiting = "SecretNotFound" }, ErrWaiting},
	} {
		f.use(pulled(t, clinicA, "billing", tc.change))
		f.refused(request(billing, cursor, 1), tc.want)
		if r := f.get(ids[0], clinicA); r.State != delivery.Delivered {
			t.Errorf("%s: what was handled is %v: it must be acknowledged all the same", name, r.State)
		}
	}
	f.calm()
}

// TestWaits: a call waits for what is published, replayed or planned, and no longer than it asks.
func TestWaits(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	long := request(billing, "", 10)
	long.Wait = MaxWait
	waits := func(then func()) answer {
		t.Helper()
		answered := make(chan answer)
		go func() { answered <- f.take(long) }()
		for f.waiters.count() == 0 {
			<-time.After(time.Millisecond)
		}
		then()
		select {
		case a := <-answered:
			return a
		case <-time.After(20 * time.Second):
			t.Fatal("it waits on")
			return answer{}
		}
	}
	f.poll = time.Hour // it is told
	var ids []event.DeliveryID
	a := waits(func() { ids = f.publish(billing, 1, 10) })
	if !slices.Equal(a.ids(), texts(ids)) {
		t.Errorf("got %q, want %q", a.ids(), texts(ids))
	}
	if err := f.store.Cancel(t.Context(), clinicA, ids[0]); err != nil {
		t.Fatal(err)
	}
	a = waits(func() {
		again, err := f.store.Replay(t.Context(), clinicA, ids[0])
		if err != nil {
			t.Error(err)
		}
		f.Resumed([]delivery.PendingDelivery{again})
	})
	if !slices.Equal(a.ids(), texts(ids)) {
		t.Errorf("got %q, want the replay", a.ids())
	}
	f.poll = pollPause // it looks
	long.After = a.Cursor
	a = waits(func() {
		e := newEvent(billing, "evt-planned", 10)
		e.Subscriptions, e.Plans = nil, []store.Plan{{Subscription: billing.Subscription, Decision: plan.Decision{At: f.store.Now().Add(300 * time.Millisecond)}}}
		if _, _, err := f.store.Append(t.Context(), []store.NewEvent{e}); err != nil {
			t.Error(err)
		}
	})
	if len(a.Deliveries) != 1 {
		t.Errorf("got %q, want what was planned", a.ids())
	}
	long.After = a.Cursor
	if a = waits(f.Drain); len(a.Deliveries) != 0 {
		t.Errorf("got %q", a.ids())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Pull(ctx, long); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.calm()
}

func (w *waiters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// TestPlaces: a namespace whose calls wait leaves places to another.
func TestPlaces(t *testing.T) {
	t.Parallel()
	ours, theirs := pulled(t, clinicA, "billing", nil), pulled(t, clinicB, "billing", nil)
	f := newFixture(t, ours, theirs)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	long := request(ours, "", 1)
	long.Wait = MaxWait
	for range MaxCalls / 2 {
		all.Go(func() { _, _ = f.Pull(ctx, long) })
	}
	for f.calls.Used() < MaxCalls/2 {
		<-time.After(time.Millisecond)
	}
	f.refused(request(ours, "", 1), ErrTooMany)
	f.want(request(theirs, "", 1), nil)
	cancel()
	all.Wait()
	f.calm()
}

// TestMemory: pages that are not read are their namespace's own, which gets no more; another namespace does.
func TestMemory(t *testing.T) {
	t.Parallel()
	ours, theirs := pulled(t, clinicA, "billing", nil), pulled(t, clinicB, "billing", nil)
	f := newFixture(t, ours, theirs)
	f.publish(ours, 4, 900<<10)
	f.publish(theirs, 1, 900<<10)
	var held []*Page
	for {
		page, err := f.Pull(t.Context(), request(ours, "", 100))
		if err != nil || len(held) > 100 {
			if !errors.Is(err, ErrNoMemory) {
				t.Fatalf("%d pages, then %v", len(held), err)
			}
			break
		}
		if held = append(held, page); len(page.Body) > 2*maxPageBytes {
			t.Errorf("a page has %d bytes", len(page.Body))
		}
	}
	if len(f.take(request(theirs, "", 1)).Deliveries) != 1 {
		t.Error("another namespace gets nothing")
	}
	for _, page := range held {
		page.Release()
	}
	f.calm()
}

// TestPages: a page ends at its bytes, and the next one goes on there; a delivery that is larger comes alone.
func TestPages(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 5, 300<<10)
	ids = append(ids, f.publish(billing, 1, 3<<20)...)
	ids = append(ids, f.publish(billing, 1, 10)...)
	got, cursor, pages := []string{}, "", 0
	for ; pages < 10; pages++ {
		a := f.take(request(billing, cursor, 100))
		if len(a.Deliveries) == 0 {
			break
		}
		got, cursor = append(got, a.ids()...), a.Cursor
		size := 0
		for _, d := range a.Deliveries {
			size += len(d.Body)
		}
		if len(a.Deliveries) > 1 && size > maxPageBytes/3*4 {
			t.Errorf("%d deliveries have %d bytes", len(a.Deliveries), size)
		}
	}
	if !slices.Equal(got, texts(ids)) || pages < 3 {
		t.Errorf("%d pages: %q, want %q", pages, got, texts(ids))
	}
	f.calm()
}

// TestUnanswerable: what cannot be answered does not hold back what comes behind it.
func TestUnanswerable(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		with       func(*routing.Entry)
		before     func(f *fixture, id event.DeliveryID)
		wantState  delivery.State
		wantReason delivery.Reason // of the delivery, or of its attempt
		wantGone   bool
	}{
		"a transform fails": {
			with:      func(e *routing.Entry) { e.Transform = &routing.Transform{Body: "{'n': 10 / int(event.data.note)}"} },
			wantState: delivery.Pending, wantReason: delivery.ReasonTransformFailed,
		},
		"recheck is false": {
			with: func(e *routing.Entry) {
				e.Schedule = &routing.Schedule{At: "event.timestamp", Recheck: "event.data.resourceId != 'evt-0001'"}
			},
			wantState: delivery.Cancelled, wantReason: delivery.ReasonRecheck,
		},
		"its key was deleted": {
			before:    func(f *fixture, id event.DeliveryID) { f.store.broken[id.Event] = store.ErrErased },
			wantState: delivery.Failed, wantGone: true,
		},
		"its event is damaged": {
			before:    func(f *fixture, id event.DeliveryID) { f.store.broken[id.Event] = store.ErrDamaged },
			wantState: delivery.Pending,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			billing := pulled(t, clinicA, "billing", tc.with)
			f := newFixture(t, billing)
			ids := f.publish(billing, 2, 10)
			if strings.Contains(name, "transform") { // the second one's note is a number
				e := newEvent(billing, "evt-number", 10)
				e.Event.Body = []byte(`{"id":"evt-number","type":"patient.created","timestamp":"2026-01-02T03:04:05.000Z","data":{"note":"5"}}`)
				_, fanouts, err := f.store.Append(t.Context(), []store.NewEvent{e})
				if err != nil {
					t.Fatal(err)
				}
				ids = []event.DeliveryID{ids[0], {Event: fanouts[0].Event.Key, Subscription: billing.Key}}
			}
			if tc.before != nil {
				tc.before(f, ids[0])
			}
			answered := f.want(request(billing, "", 100), ids[1:])
			f.poll = time.Millisecond
			again := request(billing, answered.Cursor, 100)
			again.Wait = 20 * time.Millisecond // it looks often, and holds nothing
			f.want(again, nil)
			r := f.get(ids[0], clinicA)
			reason := r.Reason
			if len(r.Attempts) > 0 {
				reason = r.Attempts[0].Reason
			}
			if r.State != tc.wantState || reason != tc.wantReason || tc.wantGone != slices.Contains(f.givenUp, ids[0]) {
				t.Errorf("it is %v, %q, given up %v", r.State, reason, f.givenUp)
			}
			f.calm()
		})
	}
}

// TestStoreFails: where the store cannot say what comes first, nothing behind it is answered.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	ids := f.publish(billing, 3, 10)
	unreachable := errors.New("the database is unreachable")
	f.store.broken[ids[0].Event] = unreachable
	f.refused(request(billing, "", 100), unreachable)
	delete(f.store.broken, ids[0].Event)
	f.store.broken[ids[1].Event] = unreachable
	f.want(request(billing, "", 100), ids[:1])
	f.calm()
}

// TestAged: what is past its age is not answered any more.
func TestAged(t *testing.T) {
	t.Parallel()
	billing := pulled(t, clinicA, "billing", nil)
	f := newFixture(t, billing)
	f.publish(billing, 1, 10)
	f.advance(73 * time.Hour)
	ids := f.publish(billing, 1, 10)
	f.want(request(billing, "", 100), ids)
}

func FuzzParseCursor(f *testing.F) {
	var sub event.SubscriptionKey
	now := time.Unix(1_800_000_000, 0)
	c := cursor{subscription: sub, given: now}
	c.add(delivery.Position{Due: now, Event: event.Key{1}})
	c.add(delivery.Position{Due: now, Event: event.Key{2}})
	f.Add(c.String())
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCursor(text, sub, now); err == nil && c.String() != text {
			t.Errorf("%q is read as %q", text, c.String())
		}
	})
}
