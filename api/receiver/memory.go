package receiver

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// The bounds of the Memory that a Receiver makes by itself.
const (
	DefaultMemoryEntries = 100_000        // about 20 MB
	DefaultMemoryTTL     = 73 * time.Hour // the dispatcher's 72 hours, and a margin
)

// ErrFull is returned by a Memory that has as many claims in progress as it may have entries.
var ErrFull = errors.New("too many deliveries are in progress")

// Memory is a Deduplicator of one process: it forgets when the process ends. It keeps a bounded number of handled
// deliveries, and forgets the least recently seen first. NewMemory makes one.
type Memory struct {
	// Now is the clock; time.Now unless replaced before the first use.
	Now func() time.Time

	limit int
	ttl   time.Duration

	mu      sync.Mutex
	claims  map[string]lease
	handled map[string]*list.Element
	recent  *list.List // of memory, the least recently seen first, so that it is in the order of expiry
}

type lease struct {
	owner string
	until time.Time
}

type memory struct {
	key   string
	until time.Time
}

// NewMemory returns a Memory that keeps at most limit handled deliveries, each for ttl after it was last seen, and at most
// limit claims. Both must be positive.
func NewMemory(limit int, ttl time.Duration) *Memory {
	return &Memory{
		Now: time.Now, limit: max(limit, 1), ttl: ttl,
		claims: map[string]lease{}, handled: map[string]*list.Element{}, recent: list.New(),
	}
}

// Claim is Deduplicator's.
func (m *Memory) Claim(_ context.Context, key, owner string, duration time.Duration) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Now()
	m.expire(now)
	if _, ok := m.handled[key]; ok {
		m.remember(key, now)
		return Handled, nil
	}
	if held, ok := m.claims[key]; ok && now.Before(held.until) {
		return InProgress, nil
	}
	if len(m.claims) >= m.limit && !m.expireClaims(now) {
		return 0, ErrFull
	}
	m.claims[key] = lease{owner: owner, until: now.Add(duration)}
	return Claimed, nil
}

// Done is Deduplicator's.
func (m *Memory) Done(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.claims, key)
	m.remember(key, m.Now())
	return nil
}

// Release is Deduplicator's.
func (m *Memory) Release(_ context.Context, key, owner string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claims[key].owner == owner {
		delete(m.claims, key)
	}
	return nil
}

// remember puts key behind all others, and forgets the first if there are too many.
func (m *Memory) remember(key string, now time.Time) {
	if known, ok := m.handled[key]; ok {
		m.recent.Remove(known)
	}
	m.handled[key] = m.recent.PushBack(memory{key: key, until: now.Add(m.ttl)})
	if m.recent.Len() > m.limit {
		m.forget(m.recent.Front())
	}
}

// expire forgets what is too old.
func (m *Memory) expire(now time.Time) {
	for first := m.recent.Front(); first != nil; first = m.recent.Front() {
		if entry, ok := first.Value.(memory); ok && now.Before(entry.until) {
			return
		}
		m.forget(first)
	}
}

func (m *Memory) forget(element *list.Element) {
	if entry, ok := m.recent.Remove(element).(memory); ok {
		delete(m.handled, entry.key)
	}
}

// expireClaims drops the claims whose lease has ended, and reports whether there was one.
func (m *Memory) expireClaims(now time.Time) bool {
	before := len(m.claims)
	for key, held := range m.claims {
		if !now.Before(held.until) {
			delete(m.claims, key)
		}
	}
	return len(m.claims) < before
}
