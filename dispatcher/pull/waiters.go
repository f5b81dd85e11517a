package pull

import (
	"sync"

	"github.com/clinikapi/eventflow/api/event"
)

// waiters are the calls that wait for deliveries, by subscription. There are no more than calls.
type waiters struct {
	mu  sync.Mutex
	all map[event.SubscriptionKey]map[chan struct{}]struct{}
}

// enter returns what is sent to when there may be something for the subscription.
func (w *waiters) enter(of event.SubscriptionKey) chan struct{} {
	woken := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[event.SubscriptionKey]map[chan struct{}]struct{})
	}
	if w.all[of] == nil {
		w.all[of] = make(map[chan struct{}]struct{})
	}
	w.all[of][woken] = struct{}{}
	return woken
}

func (w *waiters) leave(of event.SubscriptionKey, woken chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.all[of], woken); len(w.all[of]) == 0 {
		delete(w.all, of)
	}
}

// wake wakes the calls of the subscriptions that yield is called with. It costs one look where nobody waits.
func (w *waiters) wake(each func(yield func(event.SubscriptionKey))) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return
	}
	each(func(key event.SubscriptionKey) {
		for woken := range w.all[key] {
			select {
			case woken <- struct{}{}:
			default: // it looks anyway
			}
		}
	})
}
