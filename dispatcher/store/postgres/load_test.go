package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// load publishes events until it is ended. As a client does, each publisher sends what was not acknowledged again, under
// the same id, to the next replica.
type load struct {
	*cluster
	replicas []*replica
	end      func()

	refused atomic.Int64
	mu      sync.Mutex
	acked   []string
}

func (c *cluster) load(publishers int, pause time.Duration, replicas ...*replica) *load {
	ctx, cancel := context.WithCancel(c.Context())
	l := &load{cluster: c, replicas: replicas}
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() { l.publish(ctx, p, pause) })
	}
	l.end = sync.OnceFunc(func() {
		cancel()
		publishing.Wait()
	})
	c.Cleanup(l.end)
	return l
}

func (l *load) publish(ctx context.Context, p int, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("load-%d-%d", p, n)
		sub := l.subs[(p+n)%len(l.subs)]
		for try := 0; ctx.Err() == nil; try++ {
			_, err := l.replicas[(p+n+try)%len(l.replicas)].publishAs(id, sub)
			if err == nil {
				l.mu.Lock()
				l.acked = append(l.acked, id)
				l.mu.Unlock()
				break
			}
			l.refused.Add(1)
			<-tick.C
		}
		<-tick.C
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// audit waits until everything that was acknowledged was sent, and checks that each event is one delivery.
func (l *load) audit() {
	l.Helper()
	l.end()
	missing := func() (ids []string) {
		l.receivers.mu.Lock()
		defer l.receivers.mu.Unlock()
		keys := map[string]event.Key{}
		for id := range l.receivers.byID {
			hash := string(id.Event[8:])
			if other, twice := keys[hash]; twice && other != id.Event {
				l.Errorf("an event was delivered under two ids: %x, %x", id.Event, other)
			}
			keys[hash] = id.Event
		}
		for _, id := range l.acked {
			key := event.NewKey(time.Time{}, namespace, id)
			if _, ok := keys[string(key[8:])]; !ok {
				ids = append(ids, id)
			}
		}
		return ids
	}
	l.eventually("all that was acknowledged is sent", patience, func() bool { return len(missing()) == 0 })
	deliveries, attempts := l.receivers.count()
	l.Logf("%d events acknowledged, %d refusals; %d deliveries sent in %d attempts", len(l.acked), l.refused.Load(), deliveries, attempts)
	if len(l.acked) == 0 {
		l.Error("nothing was acknowledged: the test shows nothing")
	}
}
