package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// remembered is how long an accepted event's namespace and id are, in nanoseconds.
const remembered = day

// maxSkew is how far acceptances may run ahead of the clock, after it was set back, before deliveries are given a due
// time of their own.
const maxSkew = 50 * time.Millisecond

// claims are the namespaces and ids of events that are being appended. Whoever appends one of them, too, waits.
type claims struct {
	sync.Mutex
	held map[identity]*claim
}

type claim struct {
	released chan struct{} // made by who waits
}

// take takes all the ids, or returns a channel to wait for.
func (c *claims) take(mine *claim, ids []identity) <-chan struct{} {
	c.Lock()
	defer c.Unlock()
	for _, id := range ids {
		other := c.held[id]
		if other == nil {
			continue
		}
		if other.released == nil {
			other.released = make(chan struct{})
		}
		return other.released
	}
	for _, id := range ids {
		c.held[id] = mine
	}
	return nil
}

func (c *claims) release(mine *claim, ids []identity) {
	c.Lock()
	defer c.Unlock()
	for _, id := range ids {
		delete(c.held, id)
	}
	if mine.released != nil {
		close(mine.released)
		mine.released = nil
	}
}

// appending is the work of one Append; it is used again.
type appending struct {
	claim claim
	ids   []identity // of the events
	known []identity // those that others may append, too: what is claimed
	// fresh are the indexes of the events that were not accepted before.
	fresh []int
	first map[identity]int // index of an id's first event in the call, if there are several events
	// lookup finds ids, within bounds, in the days that have some; nil until the first that may be there.
	lookup *pebble.Iterator
	days   []uint32
	bounds []byte
	key    []byte
	value  []byte
	// notices are of what was planned.
	notices []delivery.Backlog
}

var appendings = sync.Pool{New: func() any { return &appending{first: map[identity]int{}} }}

// Append makes events and their deliveries durable.
func (s *Store) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.leave()
	if s.full.Load() {
		return nil, nil, store.ErrFull
	}
	a := appendings.Get().(*appending)
	defer appendings.Put(a)
	a.ids, a.known, a.fresh = a.ids[:0], a.known[:0], a.fresh[:0]
	for i := range events {
		id := identityOf(events[i].Event.Tenant, events[i].Event.ID)
		a.ids = append(a.ids, id)
		if !events[i].Fresh {
			a.known = append(a.known, id)
		}
	}
	for {
		wait := s.claims.take(&a.claim, a.known)
		if wait == nil {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	defer s.claims.release(&a.claim, a.known)
	return s.append(a, events)
}

// append does Append's work, holding the claims on its ids.
func (s *Store) append(a *appending, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	now := s.latest(s.now())
	answers := make([]store.Accepted, len(events))
	if err := s.recallAll(a, events, now, answers); err != nil {
		return nil, nil, err
	}
	if len(a.fresh) == 0 {
		return answers, nil, nil
	}
	return s.write(a, events, answers)
}

// recallAll answers the events that were accepted before, and lists the others.
func (s *Store) recallAll(a *appending, events []store.NewEvent, now uint64, answers []store.Accepted) (err error) {
	defer func() {
		if a.lookup != nil {
			err = errors.Join(err, a.lookup.Close())
			a.lookup = nil
		}
	}()
	clear(a.first)
	for i := range events {
		if err := s.recall(a, events, i, now, answers); err != nil {
			return err
		}
		if !answers[i].Repeated {
			a.fresh = append(a.fresh, i)
		}
	}
	return nil
}

// recall answers the i-th event if it was accepted before, by this call or another; else with what will be stored.
func (s *Store) recall(a *appending, events []store.NewEvent, i int, now uint64, answers []store.Accepted) error {
	e := &events[i]
	answers[i] = store.Accepted{ID: e.Event.ID, Deliveries: len(e.Subscriptions) + len(e.Plans)}
	if e.Fresh {
		return nil
	}
	if len(events) > 1 {
		first, found := a.first[a.ids[i]]
		switch {
		case !found:
			a.first[a.ids[i]] = i
		case events[first].Digest != e.Digest:
			return &store.ConflictError{Index: i, ID: e.Event.ID}
		default:
			answers[i].Repeated, answers[i].Deliveries = true, answers[first].Deliveries
			return nil
		}
	}
	if !s.idFilter.has(&a.ids[i]) {
		return nil
	}
	if a.lookup == nil {
		if err := s.lookUp(a, now); err != nil {
			return err
		}
	}
	before, found, err := a.remembered(a.ids[i], now)
	switch {
	case err != nil:
		return err
	case !found:
		return nil
	case before.digest != e.Digest:
		return &store.ConflictError{Index: i, ID: e.Event.ID}
	default:
		answers[i].Repeated, answers[i].Deliveries = true, before.count
		return nil
	}
}

// remembered looks for an acceptance within the last 24 hours, in the two days that they touch.
func (a *appending) remembered(id identity, now uint64) (acceptance, bool, error) {
	for _, bucket := range slices.Backward(a.days) {
		a.key = appendIdempotencyKey(a.key[:0], bucket, id)
		if !a.lookup.SeekPrefixGE(a.key) {
			continue
		}
		before, err := decodeAcceptance(a.lookup.Value())
		if err != nil || before.accepted+remembered > now {
			return before, err == nil, err
		}
	}
	return acceptance{}, false, a.lookup.Error()
}

// lookUp opens the iterator that remembered uses. Ids are hardly ever found, so it asks the filters of the lowest level,
// too, which Pebble skips otherwise: a look into its blocks for each event would cost more than to store the event.
func (s *Store) lookUp(a *appending, now uint64) error {
	today := bucketOf(now, day)
	a.days = s.ids.from(max(today, 1) - 1)
	a.bounds = appendBucketKey(a.bounds[:0], spaceIdempotency, max(today, 1)-1)
	a.bounds = appendBucketKey(a.bounds, spaceIdempotency, today+1)
	half := len(a.bounds) / 2
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: a.bounds[:half], UpperBound: a.bounds[half:], UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	a.lookup = it
	return nil
}
