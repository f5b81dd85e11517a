package places

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/clinikapi/eventflow/dispatcher/budget"
)

// ErrFull is returned for a source that has as many waiters as it may have.
var ErrFull = errors.New("too much waits for a place already")

// Pool is a number of places. It is safe for concurrent use.
type Pool struct {
	mu             sync.Mutex
	places, queue  int64 // limits
	taken, waiting int64
	sources        map[string]*source // those that hold a place or wait
	turns          []string           // sources with waiters, the next first
}

// source is what one source holds and waits for.
type source struct {
	held    int64
	waiters []*waiter
}

// waiter waits for a place.
type waiter struct {
	given chan struct{} // closed with the place
}

// New returns a pool of that many places, with room for that many waiters. Both are at least 1.
func New(places, queue int) *Pool {
	return &Pool{places: int64(max(1, places)), queue: int64(max(1, queue)), sources: make(map[string]*source)}
}

// Acquire waits for a place for the source. It returns ErrFull at once if the source has its share of waiters, and
// ctx.Err() if ctx ends first.
func (p *Pool) Acquire(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := p.enter(name)
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

// enter takes a place, or returns a waiter for one.
func (p *Pool) enter(name string) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[name]
	if s == nil {
		s = &source{}
	}
	if len(s.waiters) == 0 && budget.Fits(s.held, p.taken, 1, p.places) {
		p.sources[name] = s
		s.held++
		p.taken++
		return nil, nil
	}
	if !budget.Fits(int64(len(s.waiters)), p.waiting, 1, p.queue) {
		return nil, ErrFull
	}
	p.sources[name] = s
	if len(s.waiters) == 0 {
		p.turns = append(p.turns, name)
	}
	w := &waiter{given: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	p.waiting++
	return w, nil
}

// leave takes a waiter out, or gives back the place that it got in the meantime.
func (p *Pool) leave(name string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[name]
	i := slices.Index(s.waiters, w)
	if i < 0 {
		p.release(name)
		return
	}
	s.waiters = slices.Delete(s.waiters, i, i+1)
	p.waiting--
	if len(s.waiters) == 0 {
		p.turns = slices.DeleteFunc(p.turns, func(other string) bool { return other == name })
	}
	p.forget(name, s)
}

// Release gives back a place that the source holds.
func (p *Pool) Release(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(name)
}

func (p *Pool) release(name string) {
	s := p.sources[name]
	s.held--
	p.taken--
	p.forget(name, s)
	for p.giveNext() {
	}
}

// giveNext gives a place to the first source in turn that may hold one more.
func (p *Pool) giveNext() bool {
	for i, name := range p.turns {
		s := p.sources[name]
		if !budget.Fits(s.held, p.taken, 1, p.places) {
			continue
		}
		w := s.waiters[0]
		s.waiters = slices.Delete(s.waiters, 0, 1)
		s.held++
		p.taken++
		p.waiting--
		p.turns = slices.Delete(p.turns, i, i+1)
		if len(s.waiters) > 0 {
			p.turns = append(p.turns, name)
		}
		close(w.given)
		return true
	}
	return false
}

// forget drops a source that holds nothing and waits for nothing.
func (p *Pool) forget(name string, s *source) {
	if s.held == 0 && len(s.waiters) == 0 {
		delete(p.sources, name)
	}
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
