package announce

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// again is how long the same is not said of an object again.
	again = 10 * time.Minute
	// perSecond and burst bound what is said of all objects together.
	perSecond, burst = 5, 50
	// maxRemembered bounds what is remembered of what was said.
	maxRemembered = 4096
)

type said struct {
	object types.UID
	reason string
}

// limit bounds what is said. It is safe for concurrent use.
type limit struct {
	mu     sync.Mutex
	all    *rate.Limiter
	recent map[said]time.Time
}

func newLimit() *limit {
	return &limit{all: rate.NewLimiter(perSecond, burst), recent: make(map[said]time.Time)}
}

// allows reports whether reason may be said of an object now, and notes that it is.
func (l *limit) allows(object types.UID, reason string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := said{object, reason}
	if last, found := l.recent[key]; found && now.Sub(last) < again {
		return false
	}
	if len(l.recent) >= maxRemembered {
		for key, at := range l.recent {
			if now.Sub(at) >= again {
				delete(l.recent, key)
			}
		}
	}
	if len(l.recent) >= maxRemembered || !l.all.AllowN(now, 1) {
		return false
	}
	l.recent[key] = now
	return true
}
