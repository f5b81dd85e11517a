package announce

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/dispatcher/budget"
)

const (
	// again is how long the same is not said of an object again.
	again = 10 * time.Minute
	// perMinute bounds what is said within a minute, and maxRemembered what is remembered of what was said. Of both a
	// namespace may have as much as is free.
	perMinute     = 300
	maxRemembered = 4096
)

// said is what was said, of which object.
type said struct {
	object types.UID
	reason string
}

// saying is one that was said.
type saying struct {
	said
	namespace string
	at        time.Time
}

// limit bounds what is said, by namespace: objects of one that come and go keep no other's from being heard of. It is safe
// for concurrent use.
type limit struct {
	mu                 sync.Mutex
	lately, remembered *budget.Budget
	recent             map[said]struct{}
	minute, all        []saying // those that count against the budgets, the oldest first
}

func newLimit() *limit {
	return &limit{lately: budget.New(perMinute), remembered: budget.New(maxRemembered), recent: make(map[said]struct{})}
}

// allows reports whether reason may be said of an object now, and notes that it is.
func (l *limit) allows(namespace string, object types.UID, reason string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	s := saying{said{object, reason}, namespace, now}
	if _, found := l.recent[s.said]; found || !l.remembered.Take(namespace, 1) {
		return false
	}
	if !l.lately.Take(namespace, 1) {
		l.remembered.Give(namespace, 1)
		return false
	}
	l.recent[s.said] = struct{}{}
	l.minute, l.all = append(l.minute, s), append(l.all, s)
	return true
}

// forget gives back what no longer counts.
func (l *limit) forget(now time.Time) {
	for len(l.minute) > 0 && now.Sub(l.minute[0].at) >= time.Minute {
		l.lately.Give(l.minute[0].namespace, 1)
		l.minute = l.minute[1:]
	}
	for len(l.all) > 0 && now.Sub(l.all[0].at) >= again {
		l.remembered.Give(l.all[0].namespace, 1)
		delete(l.recent, l.all[0].said)
		l.all = l.all[1:]
	}
}
