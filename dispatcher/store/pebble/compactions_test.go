package pebble

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// engine stands for Pebble: it has compactions to run, and lets some run at once.
type engine struct {
	scheduler *compactions

	mu               sync.Mutex
	allowed, waiting int
	refused          bool // once it was, it waits to be asked
	running          []pebble.CompactionGrantHandle
	asked            int
}

func (e *engine) GetAllowedWithoutPermission() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.allowed
}

func (e *engine) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	e.refused = e.refused && e.waiting > 0
	return e.refused, pebble.WaitingCompaction{}
}

func (e *engine) Schedule(handle pebble.CompactionGrantHandle) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting == 0 {
		return false
	}
	e.waiting--
	e.running = append(e.running, handle)
	return true
}

// want adds compactions, and tries to run what waits.
func (e *engine) want(n int) {
	e.mu.Lock()
	e.waiting += n
	e.mu.Unlock()
	for !e.refused && e.waiting > 0 {
		granted, handle := e.scheduler.TrySchedule()
		if e.refused = !granted; granted {
			e.Schedule(handle)
		}
	}
}

// done ends a compaction.
func (e *engine) done() {
	e.mu.Lock()
	handle := e.running[0]
	e.running = e.running[1:]
	e.mu.Unlock()
	handle.Done()
}

// times is how often it was asked whether something waits.
func (e *engine) times() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *engine) expect(t *testing.T, running, waiting int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.running) != running || e.waiting != waiting {
		t.Errorf("%d compactions run and %d wait, want %d and %d", len(e.running), e.waiting, running, waiting)
	}
}

func TestCompactions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCompactions(&trouble{})
		e := &engine{scheduler: c, allowed: 1}
		c.Register(1, e)

		e.want(4)
		e.expect(t, 1, 3)
		e.mu.Lock()
		e.allowed = 2 // more may run: it finds out by itself
		e.mu.Unlock()
		<-time.After(2 * compactionPause)
		e.expect(t, 2, 2)
		e.done() // one ends, the next begins
		e.expect(t, 2, 1)

		e.mu.Lock()
		e.allowed = 3
		e.mu.Unlock()
		c.UpdateGetAllowedWithoutPermission() // or is told
		synctest.Wait()
		e.expect(t, 3, 0)

		for range 3 {
			e.done()
		}
		e.expect(t, 0, 0)
		<-time.After(time.Second)
		asked := e.times()
		<-time.After(time.Hour)
		if more := e.times() - asked; more != 0 {
			t.Errorf("with nothing to do it asked %d times", more)
		}

		e.want(4)
		e.expect(t, 3, 1)
		c.Unregister()
		for range 3 {
			e.done()
		}
		<-time.After(time.Hour)
		e.expect(t, 0, 1) // the engine is closed
	})
}
