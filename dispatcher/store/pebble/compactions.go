package pebble

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactionPause is how long after a compaction had to wait it is asked again whether more may run.
const compactionPause = 100 * time.Millisecond

// compactions lets as many compactions run at once as the engine wants. It does what Pebble's own scheduler does, but for
// its clock: that one looks ten times a second whether something waits, which is most of what an idle dispatcher does.
// This one looks while something waits.
//
// After background work failed, for lack of space or descriptors, it lets none run for a while: the engine would try again
// at once.
type compactions struct {
	db      pebble.DBForCompaction
	trouble *trouble

	mu       sync.Mutex
	calm     sync.Cond // granting ended
	granting bool
	closed   bool
	running  int
	waiting  bool        // whether one was refused, and none was found gone since
	again    *time.Timer // looks again while one waits
}

var _ pebble.CompactionScheduler = (*compactions)(nil)

func newCompactions(t *trouble) *compactions {
	c := &compactions{trouble: t}
	c.calm.L = &c.mu
	return c
}

// Register is called once, when the engine is open.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister is called when the engine is being closed. Once it returns, nothing is granted any more.
func (c *compactions) Unregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.again != nil {
		c.again.Stop()
	}
	for c.granting {
		c.calm.Wait()
	}
}

// TrySchedule lets a compaction run, if one more may.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, nil
	}
	if c.trouble.rest() <= 0 && c.running < c.db.GetAllowedWithoutPermission() {
		c.running++
		return true, c
	}
	c.waiting = true
	c.lookAgain()
	return false, nil
}

// UpdateGetAllowedWithoutPermission is called when more may be allowed than before, by who holds the engine's lock.
func (c *compactions) UpdateGetAllowedWithoutPermission() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting && !c.closed {
		go c.grant()
	}
}

// Done is called when a compaction has ended.
func (c *compactions) Done() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	c.grant()
}

// Started, MeasureCPU and CumulativeStats tell schedulers that count the processor's time.
func (c *compactions) Started()                                            {}
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind)           {}
func (c *compactions) CumulativeStats(_ pebble.CompactionGrantHandleStats) {}

// lookAgain sees to it that grant is called soon.
func (c *compactions) lookAgain() {
	if c.again == nil {
		c.again = time.AfterFunc(compactionPause, c.grant)
	} else {
		c.again.Reset(compactionPause)
	}
}

// grant lets those that wait run, as many as may. It calls the engine without the lock, which the engine may hold the
// other way round.
func (c *compactions) grant() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.granting {
		c.calm.Wait()
	}
	c.granting = true
	for !c.closed && c.trouble.rest() <= 0 && c.running < c.db.GetAllowedWithoutPermission() {
		c.running++ // taken before it is offered, so that nobody else takes it
		c.waiting = false
		c.mu.Unlock()
		waiting, _ := c.db.GetWaitingCompaction()
		taken := waiting && c.db.Schedule(c)
		c.mu.Lock()
		if !taken {
			c.running--
			break
		}
		c.waiting = true // maybe another
	}
	c.granting = false
	c.calm.Broadcast()
	if c.waiting && !c.closed {
		c.lookAgain()
	}
}
