package pebble

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// entry is a delivery as its records tell, without its event.
type entry struct {
	id       event.DeliveryID
	state    delivery.State
	attempts int
	list     []delivery.Attempt
	due      uint64 // if it is pending
	replayOf event.DeliveryID
	planned  uint64
	key      plan.Key
	reason   delivery.Reason // if it is not pending
	// bucket that it is filed in, if it is not pending.
	bucket uint32
}

func (e *entry) setPending(st *standing) {
	e.state, e.attempts, e.list, e.due, e.replayOf = delivery.Pending, st.attempts, st.list, st.due, st.replayOf
	e.planned, e.key = st.planned, st.key
}

func (e *entry) setFinished(f *finished, bucket uint32) {
	e.state, e.attempts, e.list, e.replayOf, e.bucket = f.state, f.attempts, f.list, f.replayOf, bucket
	e.planned, e.key, e.reason = f.planned, f.key, f.reason
}

// find looks for a delivery of the namespace in every place that it may be. dropping is held.
func (s *Store) find(from pebble.Reader, namespace string, id event.DeliveryID) (entry, error) {
	found := entry{id: id}
	if _, ok := s.subscriptions.name(namespace, id.Subscription); !ok {
		return found, store.ErrNotFound
	}
	st, err := s.pendingOf(from, id)
	if err != nil {
		return found, err
	}
	if st.is {
		found.setPending(&st)
		return found, nil
	}
	for _, filed := range []struct {
		space byte
		live  *buckets
		width uint64
	}{{spaceDelivered, &s.delivered, hour}, {spaceFailed, &s.failed, day}} {
		for _, bucket := range filed.live.from(bucketOf(accepted(id.Event), filed.width)) {
			key := appendFinishedKey(make([]byte, 0, finishedKeyLength), filed.space, bucket, tenantOf(namespace), id)
			err := get(from, key, func(value []byte) error {
				if value == nil {
					return nil
				}
				f, err := decodeFinished(value)
				found.setFinished(&f, bucket)
				return err
			})
			if err != nil || found.state != 0 {
				return found, err
			}
		}
	}
	return found, store.ErrNotFound
}

// eventOf returns the event of a delivery of the namespace, and whether it is where events are: a store of format 1 kept
// that of a failed delivery with the delivery. dropping is held.
func (s *Store) eventOf(from pebble.Reader, namespace string, of *entry) (e *delivery.Event, stays bool, err error) {
	stays = true
	e, err = s.findEvent(from, of.id.Event)
	if errors.Is(err, store.ErrNotFound) && (of.state == delivery.Failed || of.state == delivery.Cancelled) {
		if kept, failed := s.keptEvent(from, of); failed != nil || kept != nil {
			e, stays, err = kept, false, failed
		}
	}
	if err == nil && e.Tenant != namespace {
		return nil, false, store.ErrNotFound
	}
	return e, stays, err
}

// keptEvent returns the event that a store of format 1 kept with a failed delivery, nil if there is none.
func (s *Store) keptEvent(from pebble.Reader, of *entry) (e *delivery.Event, err error) {
	key := appendEventKey(make([]byte, 0, 24), spaceFailedEvent, of.bucket, of.id.Event)
	err = get(from, key, func(value []byte) (err error) {
		if len(value) > 0 {
			e, err = decodeEvent(of.id.Event, bytes.Clone(value))
		}
		return err
	})
	return e, err
}

// describe tells all of a delivery.
func (s *Store) describe(from pebble.Reader, namespace string, of *entry) (store.Record, error) {
	e, _, err := s.eventOf(from, namespace, of)
	if err != nil {
		return store.Record{}, err
	}
	name, _ := s.subscriptions.name(namespace, of.id.Subscription)
	r := store.Record{
		ID: of.id, EventID: e.ID, Type: e.Type, Tenant: namespace, Subscription: name, State: of.state,
		Created: of.id.Event.Accepted(), AttemptCount: of.attempts, Attempts: of.list, ReplayOf: of.replayOf,
		Reason: of.reason,
	}
	if of.planned != 0 {
		r.Planned = moment(of.planned)
	}
	if of.state == delivery.Pending {
		r.Due = moment(of.due)
	}
	return r, nil
}

// Get returns the delivery with its attempts.
func (s *Store) Get(ctx context.Context, namespace string, id event.DeliveryID) (store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return store.Record{}, err
	}
	defer s.leave()
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	// A snapshot, so that a delivery cannot move from where was not looked yet to where was.
	snapshot := s.db.NewSnapshot()
	found, err := s.find(snapshot, namespace, id)
	var r store.Record
	if err == nil {
		r, err = s.describe(snapshot, namespace, &found)
	}
	return r, errors.Join(err, snapshot.Close())
}

// source is a run of deliveries that are stored in the order of their ids, read from the newest on.
type source struct {
	entry
	space  byte
	sub    event.SubscriptionKey // of pending ones
	tenant tenant                // of finished ones
}

// sources are a heap: the one with the newest delivery comes first.
type sources []*source

func (h sources) Len() int           { return len(h) }
func (h sources) Less(i, j int) bool { return compareIDs(h[i].id, h[j].id) > 0 }
func (h sources) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)        { *h = append(*h, x.(*source)) }
func (h *sources) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func compareIDs(a, b event.DeliveryID) int {
	if c := bytes.Compare(a.Event[:], b.Event[:]); c != 0 {
		return c
	}
	return bytes.Compare(a.Subscription[:], b.Subscription[:])
}

// listing is the work of one List.
type listing struct {
	store *Store
	query store.Query
	subs  map[event.SubscriptionKey]bool // that the query asks for
	since uint64
	now   uint64
	it    *pebble.Iterator
	heap  sources
	key   []byte
}

// List merges the sources that the query touches.
func (s *Store) List(ctx context.Context, q store.Query) ([]store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &listing{store: s, query: q, since: nanos(q.Since), now: s.now(), subs: map[event.SubscriptionKey]bool{}}
	for _, sub := range s.subscriptions.named(q.Tenant, q.Subscription) {
		l.subs[sub] = true
	}
	if len(l.subs) == 0 {
		return nil, nil
	}
	it, err := s.iterate(nil, nil)
	if err != nil {
		return nil, err
	}
	l.it = it
	records, err := l.run(ctx)
	return records, errors.Join(err, it.Error(), it.Close())
}

func (l *listing) run(ctx context.Context) ([]store.Record, error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	heap.Init(&l.heap)
	var records []store.Record
	for len(l.heap) > 0 && len(records) < l.query.Limit {
		newest := l.heap[0]
		r, err := l.store.describe(l.store.db, l.query.Tenant, &newest.entry)
		switch {
		case err == nil:
			r.Attempts = r.Listed(l.query.LastAttempt)
			records = append(records, r)
		case !errors.Is(err, store.ErrNotFound): // an event of another namespace is as good as none
			return nil, err
		}
		more, err := l.advance(ctx, newest, newest.id)
		switch {
		case err != nil:
			return nil, err
		case more:
			heap.Fix(&l.heap, 0)
		default:
			heap.Pop(&l.heap)
		}
	}
	return records, nil
}

// open finds the newest delivery of each source.
func (l *listing) open(ctx context.Context) error {
	below := l.below()
	var all []*source
	state, s := l.query.State, l.store
	if l.query.Scheduled {
		if state != 0 && state != delivery.Pending {
			return nil
		}
		state = delivery.Pending
	}
	if state == 0 || state == delivery.Pending {
		for sub := range l.subs {
			all = append(all, &source{space: spaceWaiting, sub: sub})
			if !l.query.Scheduled {
				all = append(all, &source{space: spacePending, sub: sub}, &source{space: spaceHistory, sub: sub})
			}
		}
	}
	t := tenantOf(l.query.Tenant)
	if state == 0 || state == delivery.Delivered {
		for _, bucket := range s.delivered.from(bucketOf(l.since, hour)) {
			all = append(all, &source{space: spaceDelivered, entry: entry{bucket: bucket}, tenant: t})
		}
	}
	if state == 0 || state == delivery.Failed || state == delivery.Cancelled {
		for _, bucket := range s.failed.from(bucketOf(l.since, day)) {
			all = append(all, &source{space: spaceFailed, entry: entry{bucket: bucket}, tenant: t})
		}
	}
	for _, from := range all {
		found, err := l.advance(ctx, from, below)
		if err != nil {
			return err
		}
		if found {
			l.heap = append(l.heap, from)
		}
	}
	return nil
}

// below is the smallest id that is too new.
func (l *listing) below() event.DeliveryID {
	below := event.DeliveryID{}
	for i := range below.Event {
		below.Event[i] = math.MaxUint8
	}
	if !l.query.Until.IsZero() {
		below.Event = event.Key{}
		for i, ns := 0, nanos(l.query.Until); i < 8; i++ {
			below.Event[i] = byte(ns >> (56 - 8*i))
		}
	}
	if before := l.query.Before; before != (event.DeliveryID{}) && compareIDs(before, below) < 0 {
		below = before
	}
	return below
}

// advance moves a source to its newest delivery below the given one that the query asks for.
func (l *listing) advance(ctx context.Context, from *source, below event.DeliveryID) (bool, error) {
	prefix := 9
	switch from.space {
	case spacePending:
		if newest := l.store.latest(l.now) + 1; accepted(below.Event) > newest {
			// What is due later was attempted or is planned, and comes through other sources.
			below = event.DeliveryID{Event: firstKey(newest)}
		}
		l.key = appendPendingKey(l.key[:0], from.sub, accepted(below.Event), below.Event)
	case spaceHistory, spaceWaiting:
		l.key = appendHistoryKey(l.key[:0], from.sub, below.Event)
		l.key[0] = from.space
	default:
		prefix = 13
		l.key = appendFinishedKey(l.key[:0], from.space, from.bucket, from.tenant, below)
	}
	if prefix == 9 && bytes.Compare(from.sub[:], below.Subscription[:]) < 0 {
		l.key = append(l.key, 0) // the same event's delivery to this subscription comes still
	}
	// Without a bound, a source that has nothing left would look for it in all before, past what was deleted there.
	l.it.SetBounds(bytes.Clone(l.key[:prefix]), nil)
	for ok := l.it.SeekLT(l.key); ok && bytes.HasPrefix(l.it.Key(), l.key[:prefix]); ok = l.it.Prev() {
		wanted, more, err := l.read(from)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || wanted || !more {
			return wanted && more, err
		}
	}
	return false, l.it.Error()
}

// read takes what the iterator stands on as the source's delivery. wanted reports whether the query asks for it, more
// whether it is not too old.
func (l *listing) read(from *source) (wanted, more bool, err error) {
	key, value := l.it.Key(), l.it.Value()
	switch {
	case from.space == spacePending && len(key) == pendingKeyLength:
		_, from.due, from.id.Event = parsePendingKey(key)
		if !isFresh(value) {
			// It comes through its history. What is due later than the bound may be newer.
			return false, from.due >= l.since, nil
		}
		from.id.Subscription = from.sub
		from.state, from.attempts = delivery.Pending, 0
		wanted = true
	case len(key) == historyKeyLength:
		var h history
		h, err = decodeHistory(value)
		from.id = event.DeliveryID{Event: event.Key(key[9:]), Subscription: from.sub}
		from.setPending(&standing{pending: h.pending, due: h.due, list: h.list, replayOf: h.replayOf})
		wanted = !l.query.Scheduled || h.due > l.now
	case len(key) == finishedKeyLength:
		var f finished
		f, err = decodeFinished(value)
		from.id = event.DeliveryID{Event: event.Key(key[13:29]), Subscription: event.SubscriptionKey(key[29:])}
		from.setFinished(&f, from.bucket)
		wanted = l.subs[from.id.Subscription] && (l.query.State == 0 || l.query.State == f.state)
	default:
		err = fmt.Errorf("read key %x: %w", key, &DamagedError{Kind: kindFinished})
	}
	if !l.query.Key.IsZero() {
		wanted = wanted && l.query.Key == from.key
	}
	return wanted, accepted(from.id.Event) >= l.since, err
}
