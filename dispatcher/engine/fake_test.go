package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// memoryStore keeps deliveries as the Store interface asks, and nothing more.
type memoryStore struct {
	mu       sync.Mutex
	events   map[event.Key]*delivery.Event
	pending  map[event.DeliveryID]delivery.PendingDelivery
	finished map[event.DeliveryID]delivery.State
	attempts map[event.DeliveryID][]delivery.Attempt
	counts   map[event.SubscriptionKey]delivery.Counts
	order    uint64 // of what is appended
	// namespace and size are those of the events that are appended; clinic-a and a few bytes if empty.
	namespace string
	size      int
	epochs    map[int]int64 // of leases, by shard, where it is not 1
	owned     chan delivery.Owner
	given     func(shard int) // is told of each that is given back
	fail      error           // of every call, while it is set
	records   int             // calls of Record
	// recordTime is how long Record takes for each outcome.
	recordTime time.Duration
	last       time.Time
	reasons    map[event.DeliveryID]delivery.Reason // of those that ended without an attempt
	starts     []started                            // answers of Start to come
	asked      int                                  // calls of Start
}

func newMemoryStore() *memoryStore {
	return &memoryStore{
		events: map[event.Key]*delivery.Event{}, pending: map[event.DeliveryID]delivery.PendingDelivery{}, finished: map[event.DeliveryID]delivery.State{},
		attempts: map[event.DeliveryID][]delivery.Attempt{}, counts: map[event.SubscriptionKey]delivery.Counts{},
		reasons: map[event.DeliveryID]delivery.Reason{},
		epochs:  map[int]int64{}, owned: make(chan delivery.Owner, 1000),
	}
}

// append stores an event with deliveries to subs, as a publish does.
func (s *memoryStore) append(id string, subs ...event.SubscriptionKey) []delivery.Fanout {
	s.mu.Lock()
	defer s.mu.Unlock()
	accepted := time.Now()
	if !accepted.After(s.last) {
		accepted = s.last.Add(1)
	}
	s.last = accepted
	ns := cmp.Or(s.namespace, namespace)
	e := &delivery.Event{Key: event.NewKey(accepted, ns, id), Tenant: ns, ID: id, Type: "patient.created", Body: []byte(`{"id":"` + id + `"}`)}
	e.Body = append(e.Body, make([]byte, max(0, s.size-len(e.Body)))...)
	s.events[e.Key] = e
	f := delivery.Fanout{Event: e, Due: accepted, Order: s.order}
	for _, key := range subs {
		sub := &delivery.Subscription{Key: key, Tenant: namespace, Ordered: true}
		f.Subscriptions = append(f.Subscriptions, sub)
		d := f.Delivery(sub)
		d.Event = nil
		s.pending[d.ID] = d
	}
	return []delivery.Fanout{f}
}

// idOf is the id of the first delivery.
func idOf(fanouts []delivery.Fanout) event.DeliveryID {
	return fanouts[0].Delivery(fanouts[0].Subscriptions[0]).ID
}

func (s *memoryStore) Own(ctx context.Context, owner delivery.Owner) error {
	s.owned <- owner
	for shard := range delivery.Shards {
		owner.Take(delivery.Lease{Shard: shard, Epoch: 1})
	}
	<-ctx.Done()
	var releasing sync.WaitGroup
	for shard := range delivery.Shards {
		releasing.Go(func() {
			owner.Release(context.WithoutCancel(ctx), shard)
			if s.given != nil {
				s.given(shard)
			}
		})
	}
	releasing.Wait()
	return nil
}

func (s *memoryStore) Backlogs(_ context.Context, shard int, yield func(delivery.Backlog) error) error {
	s.mu.Lock()
	if s.fail != nil {
		defer s.mu.Unlock()
		return s.fail
	}
	earliest := map[event.SubscriptionKey]time.Time{}
	for id, d := range s.pending {
		if delivery.ShardOf(id.Subscription) != shard {
			continue
		}
		if due, ok := earliest[id.Subscription]; !ok || d.Due.Before(due) {
			earliest[id.Subscription] = d.Due
		}
	}
	s.mu.Unlock()
	for sub, due := range earliest {
		if err := yield(delivery.Backlog{Subscription: sub, Due: due}); err != nil {
			return err
		}
	}
	return nil
}

func (s *memoryStore) of(sub event.SubscriptionKey) []delivery.PendingDelivery {
	var all []delivery.PendingDelivery
	for id, d := range s.pending {
		if id.Subscription == sub {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b delivery.PendingDelivery) int {
		if a.Position().Before(b.Position()) {
			return -1
		}
		return 1
	})
	return all
}

func (s *memoryStore) Due(_ context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, delivery.Position, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, delivery.Position{}, false, s.fail
	}
	for _, d := range s.of(sub) {
		if d.Position().Before(from) {
			continue
		}
		if d.Due.After(until) || limit == 0 {
			return into, d.Position(), true, nil
		}
		into = append(into, d)
		limit--
	}
	return into, delivery.Position{}, false, nil
}

func (s *memoryStore) Aged(_ context.Context, sub event.SubscriptionKey, since time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.of(sub) {
		if !d.Since.After(since) && len(into) < limit {
			into = append(into, d)
		}
	}
	return into, s.fail
}

func (s *memoryStore) First(_ context.Context, sub event.SubscriptionKey, order uint64) (delivery.PendingDelivery, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first delivery.PendingDelivery
	for id, d := range s.pending {
		if id.Subscription == sub && d.Order == order && (first.Order == 0 || bytes.Compare(id.Event[:], first.ID.Event[:]) < 0) {
			first = d
		}
	}
	return first, first.Order != 0, s.fail
}

func (s *memoryStore) Event(_ context.Context, key event.Key) (*delivery.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	e, ok := s.events[key]
	if !ok {
		return nil, errors.New("no such event")
	}
	return &delivery.Event{Key: e.Key, Tenant: e.Tenant, ID: e.ID, Type: e.Type, Body: e.Body}, nil
}

func (s *memoryStore) Record(_ context.Context, outcomes []delivery.Outcome) error {
	if s.recordTime > 0 {
		<-time.After(s.recordTime * time.Duration(len(outcomes)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.records++
	for _, o := range outcomes {
		d, ok := s.pending[o.Delivery.ID]
		epoch, changed := s.epochs[delivery.ShardOf(o.Delivery.ID.Subscription)]
		if !changed {
			epoch = 1
		}
		if !ok || o.Epoch != epoch {
			continue
		}
		c := s.counts[d.ID.Subscription]
		if o.Attempt != nil {
			s.attempts[d.ID] = append(s.attempts[d.ID], *o.Attempt)
			d.Attempts++
			c.FailuresInARow++
			if o.State == delivery.Delivered {
				c.FailuresInARow, c.Gone = 0, 0
			}
		}
		if o.Gone != 0 {
			c.Gone = o.Gone
		}
		s.counts[d.ID.Subscription] = c
		if o.State == delivery.Pending {
			d.Due = o.Due
			s.pending[d.ID] = d
			continue
		}
		delete(s.pending, d.ID)
		s.finished[d.ID] = o.State
		s.reasons[d.ID] = o.Reason
	}
	return nil
}

func (s *memoryStore) Counts(_ context.Context, sub event.SubscriptionKey) (delivery.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[sub], s.fail
}

func (s *memoryStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// total counts the deliveries in state.
func (s *memoryStore) total(state delivery.State) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == delivery.Pending {
		return len(s.pending)
	}
	n := 0
	for _, have := range s.finished {
		if have == state {
			n++
		}
	}
	return n
}

// sent is one attempt as an endpoint saw it.
type sent struct {
	id     event.DeliveryID
	number int
	at     time.Time
}

// endpoints is a fake Sender and the Endpoints in one: each subscription has an answer.
type endpoints struct {
	mu       sync.Mutex
	table    map[event.SubscriptionKey]*Endpoint
	answer   map[event.SubscriptionKey]func(ctx context.Context, r payload.Request) egress.Result
	targets  map[*egress.Target]event.SubscriptionKey
	sent     map[event.SubscriptionKey][]sent
	inFlight map[event.SubscriptionKey]int
	peak     map[event.SubscriptionKey]int
}

func newEndpoints() *endpoints {
	return &endpoints{
		table: map[event.SubscriptionKey]*Endpoint{}, answer: map[event.SubscriptionKey]func(context.Context, payload.Request) egress.Result{},
		targets: map[*egress.Target]event.SubscriptionKey{}, sent: map[event.SubscriptionKey][]sent{},
		inFlight: map[event.SubscriptionKey]int{}, peak: map[event.SubscriptionKey]int{},
	}
}

const namespace = "clinic-a"

var defaultRetry = RetryPolicy{Initial: 30 * time.Second, Factor: 4, Max: 2 * time.Hour, MaxAge: 72 * time.Hour}

// add makes a subscription whose endpoint answers so.
func (s *endpoints) add(name string, answer func(ctx context.Context, r payload.Request) egress.Result) event.SubscriptionKey {
	key := event.NewSubscriptionKey(name)
	s.set(key, Endpoint{Tenant: namespace, Retry: defaultRetry, MaxInFlight: 32, Generation: 1, Target: &egress.Target{}})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[key] = answer
	return key
}

func (s *endpoints) set(key event.SubscriptionKey, e Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Target != nil {
		e.Target = &egress.Target{URL: "http://" + string(key[:])} // a target of its own
		s.targets[e.Target] = key
	}
	s.table[key] = &e
}

func (s *endpoints) edit(key event.SubscriptionKey, change func(*Endpoint)) {
	s.mu.Lock()
	e := *s.table[key]
	s.mu.Unlock()
	change(&e)
	s.set(key, e)
}

func (s *endpoints) Endpoint(key event.SubscriptionKey) (*Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.table[key]
	return e, ok
}

func (s *endpoints) Send(ctx context.Context, r payload.Request) egress.Result {
	s.mu.Lock()
	key := s.targets[r.Target]
	s.sent[key] = append(s.sent[key], sent{r.Delivery, r.Number, time.Now()})
	s.inFlight[key]++
	s.peak[key] = max(s.peak[key], s.inFlight[key])
	answer := s.answer[key]
	s.mu.Unlock()
	started := time.Now()
	if r.Written != nil {
		r.Written()
	}
	result := answer(ctx, r)
	result.Started, result.Duration = started, time.Since(started)
	s.mu.Lock()
	s.inFlight[key]--
	s.mu.Unlock()
	return result
}

// takePeak returns the most attempts that were in flight at once since it was called last.
func (s *endpoints) takePeak(key event.SubscriptionKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	peak := s.peak[key]
	s.peak[key] = s.inFlight[key]
	return peak
}

func (s *endpoints) answerWith(key event.SubscriptionKey, answer func(context.Context, payload.Request) egress.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[key] = answer
}

func (s *endpoints) to(key event.SubscriptionKey) []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent[key])
}

func ok(context.Context, payload.Request) egress.Result { return egress.Result{StatusCode: 200} }

func status(code int) func(context.Context, payload.Request) egress.Result {
	return func(context.Context, payload.Request) egress.Result {
		return egress.Result{StatusCode: code, Reason: delivery.ReasonStatusCode}
	}
}

// slow answers 200 after d, or is interrupted.
func slow(d time.Duration) func(context.Context, payload.Request) egress.Result {
	return func(ctx context.Context, _ payload.Request) egress.Result {
		select {
		case <-time.After(d):
			return egress.Result{StatusCode: 200}
		case <-ctx.Done():
			return egress.Result{Reason: delivery.ReasonInterrupted}
		}
	}
}

// hang never answers within the attempt's 30 s.
func hang(ctx context.Context, _ payload.Request) egress.Result {
	select {
	case <-time.After(30 * time.Second):
		return egress.Result{Reason: delivery.ReasonTimeout}
	case <-ctx.Done():
		return egress.Result{Reason: delivery.ReasonInterrupted}
	}
}

// failing answers 500 to the first n attempts of each delivery, then 200.
func failing(n int) func(context.Context, payload.Request) egress.Result {
	return func(_ context.Context, r payload.Request) egress.Result {
		if r.Number <= n {
			return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
		}
		return egress.Result{StatusCode: 200}
	}
}

// start runs an engine in the test's bubble; the result stops it and waits.
func start(t *testing.T, s *memoryStore, to *endpoints, options Options) (*Engine, func()) {
	t.Helper()
	options.Store, options.Sender, options.Logger = s, to, testr.New(t)
	if options.Jitter == nil {
		options.Jitter = func() float64 { return 0 }
	}
	e := New(options)
	e.Use(to, true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return e, func() { cancel(); <-done }
}

// advance lets the bubble's clock run for d, and what falls due within it happen.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// started is what one call of Start answers.
type started struct {
	ok  bool
	err error
}

var errStore = errors.New("the store failed")

// Start answers as starts says; without, it lets every planned delivery go. One that does not start has ended.
func (s *memoryStore) Start(_ context.Context, d delivery.PendingDelivery) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if len(s.starts) == 0 {
		return true, nil
	}
	answer := s.starts[0]
	s.starts = s.starts[1:]
	if !answer.ok && answer.err == nil {
		delete(s.pending, d.ID)
	}
	return answer.ok, answer.err
}
