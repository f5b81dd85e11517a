package subscription

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	// programmedWithin is how long a dispatcher may take to say that it has a subscription before the status says that this is
	// waited for. Usually it takes a second: then the status is written once and not twice.
	programmedWithin = 10 * time.Second
	// programmedBusy is the same for a dispatcher that works off many: it has just said so of another one.
	programmedBusy = 20 * time.Second
	// programmedAtLast is when the status is written in any case: after that long in the table, or that long before it is written.
	programmedAtLast = time.Minute
)

// awaits notes which subscriptions are accepted, and not yet said to be programmed. Until then their status stands as it
// is: its observedGeneration says that it is not about this spec.
type awaits struct {
	mu       sync.Mutex
	waiting  map[client.ObjectKey]await
	progress map[v1alpha1.DispatcherReference]time.Time // when a dispatcher last ended a wait
}

// await is since when which generation of a subscription waits: for the table to be written, or for the dispatcher to take it over.
type await struct {
	uid        types.UID
	generation int64
	written    bool
	since      time.Time
}

// put notes how a subscription is, awaited if the dispatcher has yet to take it over, and written if an index names it. It returns
// how long its status need not be written; 0 if it is to be now.
func (a *awaits) put(sub *v1alpha1.WebhookSubscription, v verdict, awaited, written bool, now time.Time) time.Duration {
	key := client.ObjectKeyFromObject(sub)
	a.mu.Lock()
	defer a.mu.Unlock()
	known, waits := a.waiting[key]
	if v.rejection != nil || !awaited {
		if waits && v.rejection == nil {
			a.note(sub.Spec.DispatcherRef, now)
		}
		delete(a.waiting, key)
		return 0
	}
	if !waits || known.uid != sub.UID || known.generation != sub.Generation || known.written != written {
		known = await{uid: sub.UID, generation: sub.Generation, written: written, since: now}
		if a.waiting == nil {
			a.waiting = make(map[client.ObjectKey]await)
		}
		a.waiting[key] = known
	}
	if !written { // it is not the dispatcher that is slow
		return max(0, min(programmedWithin, programmedAtLast-now.Sub(known.since)))
	}
	return a.patience(known.since, a.progress[sub.Spec.DispatcherRef], now)
}

// patience is how long a wait that began at since goes on, of a dispatcher that made progress then.
func (*awaits) patience(since, progress, now time.Time) time.Duration {
	switch {
	case now.Sub(since) >= programmedAtLast:
		return 0
	case now.Sub(since) < programmedWithin:
		return programmedWithin - now.Sub(since)
	case now.Sub(progress) < programmedWithin:
		return min(programmedBusy, programmedAtLast-now.Sub(since))
	default:
		return 0
	}
}

func (a *awaits) note(dispatcher v1alpha1.DispatcherReference, now time.Time) {
	if a.progress == nil {
		a.progress = make(map[v1alpha1.DispatcherReference]time.Time)
	}
	a.progress[dispatcher] = now
}

func (a *awaits) forget(key client.ObjectKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, key)
}
