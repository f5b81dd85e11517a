package replay

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

// The most that is done behind a position that the API server has.
const (
	pageTime  = 2 * time.Second
	pageLimit = 500
)

// part is what of a replay is a dispatcher's own.
type part struct {
	subscriptions []string // names, in the order of work
	batch         query.Batch
	// rate is the dispatcher's share of the rate, in deliveries a second.
	rate float64
	// progress is what the dispatcher said last; without a state if it said nothing yet.
	progress v1alpha1.ReplayProgress
}

// partOf returns the dispatcher's part of a replay, and whether there is one that is not finished. There is none before the manager
// selected subscriptions. The set ends with the second in which the object was created, which is what the API server says of that.
func partOf(r *v1alpha1.WebhookReplay, dispatcher string) (p part, open bool) {
	dispatchers := map[string]bool{}
	for _, s := range r.Status.Subscriptions {
		dispatchers[s.Dispatcher] = true
		if s.Dispatcher == dispatcher {
			p.subscriptions = append(p.subscriptions, s.Name)
		}
	}
	if len(p.subscriptions) == 0 || !r.DeletionTimestamp.IsZero() {
		return part{}, false
	}
	p.progress.Name = dispatcher
	for i := range r.Status.Dispatchers {
		if r.Status.Dispatchers[i].Name == dispatcher {
			p.progress = *r.Status.Dispatchers[i].DeepCopy()
		}
	}
	p.rate = float64(cmp.Or(r.Spec.RatePerSecond, defaultRate)) / float64(len(dispatchers))
	p.batch = query.Batch{Cancel: r.Spec.Action == v1alpha1.ActionCancel, State: states[r.Spec.State], Until: r.CreationTimestamp.Add(time.Second)}
	if r.Spec.Since != nil {
		p.batch.Since = r.Spec.Since.Time
	}
	if u := r.Spec.Until; u != nil && u.Time.Before(p.batch.Until) {
		p.batch.Until = u.Time
	}
	return p, p.progress.State != v1alpha1.ReplayFinished
}

// defaultRate is that of the schema.
const defaultRate = 50

var states = map[v1alpha1.ReplayState]delivery.State{
	v1alpha1.ReplayFailed: delivery.Failed, v1alpha1.ReplayDelivered: delivery.Delivered, v1alpha1.ReplayCancelled: delivery.Cancelled,
}

// left are the subscriptions that are left, from the one that the work is at.
func (p *part) left() []string {
	return p.subscriptions[max(0, slices.Index(p.subscriptions, p.progress.Subscription)):]
}

// page and chunk are how many deliveries are read, and done, at once: the rate is to be held, and a stop to be heard.
func (p *part) page() int { return max(1, min(pageLimit, int(p.rate*pageTime.Seconds()))) }

func (p *part) chunk() int { return max(1, min(query.MaxChunk, int(p.rate/4))) }

// repeats reports whether what was done must be looked for: a delivered delivery stays Delivered when it is replayed.
func (p *part) repeats() bool { return !p.batch.Cancel && p.batch.State == delivery.Delivered }

// count adds to what was done and passed over.
func (p *part) count(done, passedOver int) {
	p.progress.Done = ptr.To(ptr.Deref(p.progress.Done, 0) + int64(done))
	p.progress.PassedOver = ptr.To(ptr.Deref(p.progress.PassedOver, 0) + int64(passedOver))
}

// finish ends the part. What was selected and not met by then is passed over: it is not kept any more, or not as it was.
func (p *part) finish() {
	done, passed := ptr.Deref(p.progress.Done, 0), ptr.Deref(p.progress.PassedOver, 0)
	selected := max(ptr.Deref(p.progress.Selected, 0), done)
	p.progress = v1alpha1.ReplayProgress{
		Name: p.progress.Name, State: v1alpha1.ReplayFinished, Selected: ptr.To(max(selected, done+passed)), Done: ptr.To(done), PassedOver: ptr.To(max(passed, selected-done)),
	}
}
