package places

import (
	"container/heap"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/clinikapi/eventflow/dispatcher/budget"
)

// ErrFull is returned for a source that has as many waiters as it may have.
var ErrFull = errors.New("too much waits for a place already")

// Endless newcomers would make the others wait forever. So one goes before those that came up to newcomerLead waiters earlier,
// and after so many in a row as newcomersInARow says, the next begin where the others are.
const (
	newcomerLead    = 512
	newcomersInARow = 64
)

// Pool is a number of places. It is safe for concurrent use.
type Pool struct {
	mu             sync.Mutex
	places, queue  int64 // limits
	taken, waiting int64
	sources        map[string]*source // those that hold a place, wait, or had more than their share since something waits
	turns          turns
	idle           []*source // ask for nothing, and are to be remembered until now has reached their start
	now            int64     // the start of whom was served last
	arrivals       int64     // waiters so far
	still          int       // how often somebody was served since now moved
}

// source is what one source holds and waits for.
type source struct {
	name    string
	held    int64
	waiters []*waiter
	// start is what the source had, in places, on the scale of Pool.now: who has the least is next. A source that asks
	// for nothing does not save up: it begins again at now.
	start int64
	// ahead is by how many waiters the source goes ahead of those with the same start.
	ahead int64
	index int // in turns; -1 if it is not there
	idle  bool
}

// waiter waits for places.
type waiter struct {
	wants int64
	since int64         // its number
	given chan struct{} // closed with the places
}

// New returns a pool of that many places, with room for that many waiters. Both are at least 1.
func New(places, queue int) *Pool {
	return &Pool{places: int64(max(1, places)), queue: int64(max(1, queue)), sources: make(map[string]*source)}
}

// Acquire waits until the source has n more places; of more than the pool has, it waits for all. It returns ErrFull at once
// if the source has its share of waiters, and ctx.Err() if ctx ends first.
func (p *Pool) Acquire(ctx context.Context, name string, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := p.enter(name, p.clamp(n))
	if w == nil {
		return err
	}
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
		p.leave(name, w)
		return ctx.Err()
	}
}

// clamp returns how many places a request for n is about.
func (p *Pool) clamp(n int) int64 { return min(max(1, int64(n)), p.places) }

// await puts a source in turn if it waits.
func (p *Pool) await(s *source) {
	if len(s.waiters) > 0 {
		heap.Push(&p.turns, s)
	}
}

// enter takes places, or returns a waiter for them.
func (p *Pool) enter(name string, n int64) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[name]
	if s == nil {
		s = &source{name: name, start: -1, index: -1}
	}
	if p.waiting == 0 && budget.Fits(s.held, p.taken, n, p.places) {
		p.sources[name] = s
		s.held += n
		p.taken += n
		return nil, nil
	}
	if !budget.Fits(int64(len(s.waiters)), p.waiting, 1, p.queue) {
		return nil, ErrFull
	}
	p.sources[name] = s
	p.arrivals++
	p.waiting++
	w := &waiter{wants: n, since: p.arrivals, given: make(chan struct{})}
	if s.waiters = append(s.waiters, w); len(s.waiters) == 1 {
		if s.start < p.now {
			s.start, s.ahead = p.now, newcomerLead
		}
		p.await(s)
	}
	p.give()
	return w, nil
}

// leave takes a waiter out, or gives back the places that it got in the meantime.
func (p *Pool) leave(name string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[name]
	if i := slices.Index(s.waiters, w); i >= 0 {
		heap.Remove(&p.turns, s.index)
		s.waiters = slices.Delete(s.waiters, i, i+1)
		p.waiting--
		p.await(s)
		p.give() // it may have been what the others waited for
		p.forget(s)
		return
	}
	p.release(s, w.wants)
}

// Release gives back n places that the source holds, as many as it asked for.
func (p *Pool) Release(name string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(p.sources[name], p.clamp(n))
}

func (p *Pool) release(s *source, n int64) {
	s.held -= n
	p.taken -= n
	p.give()
	p.forget(s)
}

// give gives places to those in turn until the next one has to wait.
func (p *Pool) give() {
	for p.giveNext() {
	}
	if p.waiting == 0 {
		p.begin()
	}
}

// giveNext gives places to the first source in turn that may have what it waits for, and reports whether there was one. A
// source that holds its share is passed over. For one that holds nothing, what is free is kept until it is enough: others
// that want less would make it wait forever.
func (p *Pool) giveNext() bool {
	var over []*source
	defer func() {
		for _, s := range over {
			heap.Push(&p.turns, s)
		}
	}()
	for len(p.turns) > 0 {
		s := p.turns[0]
		if fits := budget.Fits(s.held, p.taken, s.waiters[0].wants, p.places); !fits && s.held == 0 {
			return false
		} else if heap.Pop(&p.turns); fits {
			p.serve(s)
			return true
		}
		over = append(over, s)
	}
	return false
}

// serve gives places to the first waiter of a source whose turn it was.
func (p *Pool) serve(s *source) {
	w := s.waiters[0]
	s.waiters = slices.Delete(s.waiters, 0, 1)
	s.held += w.wants
	p.taken += w.wants
	p.waiting--
	if p.still++; s.start > p.now {
		p.now, p.still = s.start, 0
	} else if p.still >= newcomersInARow {
		p.now, p.still = p.now+1, 0
	}
	s.start, s.ahead = s.start+w.wants, 0
	p.await(s)
	close(w.given)
}

// begin forgets what each source had: nobody waits.
func (p *Pool) begin() {
	if p.now == 0 && len(p.idle) == 0 {
		return
	}
	p.now = 0
	for _, s := range p.sources {
		s.start = 0
	}
	p.forgetIdle()
}

// forget drops a source that holds nothing and waits for nothing, as soon as there is nothing to remember of it.
func (p *Pool) forget(s *source) {
	switch {
	case s.held > 0 || len(s.waiters) > 0 || s.idle:
	case s.start <= p.now:
		delete(p.sources, s.name)
	default:
		s.idle = true
		p.idle = append(p.idle, s)
	}
	p.forgetIdle()
}

// forgetIdle drops the sources that were idle for long enough. Their starts are in order but for what one of them took.
func (p *Pool) forgetIdle() {
	n := 0
	for n < len(p.idle) && p.idle[n].start <= p.now {
		s := p.idle[n]
		if s.idle = false; s.held == 0 && len(s.waiters) == 0 {
			delete(p.sources, s.name)
		}
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
}

// Waiting is how many wait for a place.
func (p *Pool) Waiting() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// Taken is how many places are held.
func (p *Pool) Taken() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
