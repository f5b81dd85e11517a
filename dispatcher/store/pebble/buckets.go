package pebble

import (
	"slices"
	"sync"
	"sync/atomic"
)

// buckets are those of a keyspace that may hold something, oldest first. Reading them takes no lock.
type buckets struct {
	mu   sync.Mutex // for changes
	live atomic.Pointer[[]uint32]
}

// list returns the buckets, not to be modified.
func (b *buckets) list() []uint32 {
	if live := b.live.Load(); live != nil {
		return *live
	}
	return nil
}

// from returns the buckets that are n or later.
func (b *buckets) from(n uint32) []uint32 {
	live := b.list()
	i, _ := slices.BinarySearch(live, n)
	return live[i:]
}

// add makes n one of the buckets. It comes before the write that fills it.
func (b *buckets) add(n uint32) {
	if live := b.list(); len(live) > 0 && live[len(live)-1] == n {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	live := b.list()
	i, found := slices.BinarySearch(live, n)
	if !found {
		grown := slices.Insert(slices.Clone(live), i, n)
		b.live.Store(&grown)
	}
}

// drop takes out the buckets that are n or earlier.
func (b *buckets) drop(n uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(b.list()), func(have uint32) bool { return have <= n })
	b.live.Store(&rest)
}

// remove takes out the bucket n.
func (b *buckets) remove(n uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(b.list()), func(have uint32) bool { return have == n })
	b.live.Store(&rest)
}

// expired returns the newest bucket that is n or earlier, and false if there is none.
func (b *buckets) expired(n uint32) (uint32, bool) {
	live := b.list()
	i, found := slices.BinarySearch(live, n)
	if !found {
		i--
	}
	if i < 0 {
		return 0, false
	}
	return live[i], true
}
