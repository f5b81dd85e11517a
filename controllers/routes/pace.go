package routes

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A flush may write so much: what is beyond waits for the next, the shards of those who changed little going first. A change
// of one subscription goes at once while others change thousands; etcd, which keeps what was written for minutes, is spared.
const (
	// secretsPerSecond and secretsAtOnce bound the Secrets that are written.
	secretsPerSecond = 20
	secretsAtOnce    = 80
	// bytesPerMinute and bytesAtOnce bound their bytes.
	bytesPerMinute = 64 << 20
	bytesAtOnce    = 16 << 20
)

// Changes come in bursts, such as when a Secret is rotated that hundreds of subscriptions name. A flush that began with the first
// of them would leave the rest for the next one, a second later.
const (
	// gatherQuiet is how long nothing has to change for a burst to be over.
	gatherQuiet = 50 * time.Millisecond
	// gatherMost is how long a burst is waited for.
	gatherMost = 250 * time.Millisecond
)

// burst is when the first and the last of the changes came that wait for a flush; zero if there are none.
type burst struct{ first, last time.Time }

func (b *burst) note(now time.Time) {
	if b.first.IsZero() {
		b.first = now
	}
	b.last = now
}

// wait is how long to gather more of it.
func (b *burst) wait(now time.Time) time.Duration {
	if b.first.IsZero() {
		return 0
	}
	return max(0, min(b.last.Add(gatherQuiet).Sub(now), b.first.Add(gatherMost).Sub(now)))
}

// gather is how long to wait for more changes before a flush; if it is 0, the flush begins now.
func (t *Table) gather(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.burst.wait(now)
	if wait == 0 {
		t.burst = burst{}
	}
	return wait
}

// allowance is a token bucket that may be overdrawn by one write: how large a shard is shows once it is encoded.
type allowance struct {
	most, perSecond float64
	left            float64
	at              time.Time
}

func newAllowance(most, perSecond float64) allowance {
	return allowance{most: most, perSecond: perSecond, left: most}
}

// take uses n of it.
func (a *allowance) take(n float64, now time.Time) {
	a.refill(now)
	a.left -= n
}

// wait is how long there is nothing left.
func (a *allowance) wait(now time.Time) time.Duration {
	a.refill(now)
	if a.left > 0 {
		return 0
	}
	return time.Duration((1 - a.left) / a.perSecond * float64(time.Second))
}

func (a *allowance) refill(now time.Time) {
	if !a.at.IsZero() {
		a.left = min(a.most, a.left+a.perSecond*now.Sub(a.at).Seconds())
	}
	a.at = now
}

// due are the shards that are to be written. Those come first whose changes are of a namespace with the fewest changes.
func (t *Table) due() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	changes := make(map[string]int) // by namespace
	var dirty []int
	for i := range t.shards {
		if s := &t.shards[i]; s.dirty() {
			dirty = append(dirty, i)
			s.changed(func(namespace string) { changes[namespace]++ })
		}
	}
	rank := make(map[int]int, len(dirty))
	for _, i := range dirty {
		rank[i] = math.MaxInt
		t.shards[i].changed(func(namespace string) { rank[i] = min(rank[i], changes[namespace]) })
	}
	slices.SortStableFunc(dirty, func(a, b int) int { return cmp.Compare(rank[a], rank[b]) })
	return dirty
}

// changed calls each with the namespace of every entry that is to be written.
func (s *shard) changed(each func(namespace string)) {
	for identity, before := range s.before {
		if entry := cmp.Or(s.entries[identity], before); entry != nil {
			each(entry.Namespace)
		}
	}
}

// pause is how long to wait before anything more may be written.
func (t *Table) pause(now time.Time) time.Duration {
	return max(t.secretsLeft.wait(now), t.bytesLeft.wait(now))
}

// spend notes that a Secret of so many bytes was written.
func (t *Table) spend(bytes int) {
	now := time.Now()
	t.secretsLeft.take(1, now)
	t.bytesLeft.take(float64(bytes), now)
	bytesWritten.WithLabelValues(t.dispatcher.Namespace, t.dispatcher.Name).Add(float64(bytes))
	t.written++
}
