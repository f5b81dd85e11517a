package status

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	// surveyPause gathers the reasons for a survey: at the start, and after another dispatcher went, many shards are taken
	// at once.
	surveyPause = 300 * time.Millisecond
	// fewUnknown are looked up one by one.
	fewUnknown = 10
	// surveyTimeout bounds one survey.
	surveyTimeout = 10 * time.Minute
)

// requestSurvey has it found out what stands of the subscriptions that this process does not know. It never blocks.
func (w *Writer) requestSurvey() {
	w.mu.Lock()
	w.surveying = w.table != nil
	wanted := w.surveying
	w.mu.Unlock()
	if !wanted {
		return
	}
	select {
	case w.survey <- struct{}{}:
	default:
	}
}

// surveys finds out what stands, until ctx ends. What came or changed meanwhile does not wait for that.
func (w *Writer) surveys(ctx context.Context) {
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.survey:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(surveyPause):
		}
		select { // what was asked for meanwhile is done with this one
		case <-w.survey:
		default:
		}
		w.mu.Lock()
		w.surveying = true
		w.mu.Unlock()
		err := w.find(ctx)
		if err == nil {
			retry = firstRetry
			continue
		}
		w.logger.V(1).Info("Reading the statuses of subscriptions failed; trying again", "error", err.Error())
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
		w.requestSurvey()
	}
}

// find reads what stands of the subscriptions that are not known: a page of hundreds with one request.
func (w *Writer) find(ctx context.Context) error {
	unknown := w.unknown()
	if len(unknown) > fewUnknown {
		ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
		defer cancel()
		err := w.client.List(ctx, func(identity string, status v1alpha1.WebhookSubscriptionStatus) { w.found(ctx, identity, status) })
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		if err == nil { // what was not listed is gone, and the table will say so
			unknown = nil
		}
	}
	w.mu.Lock()
	w.surveying = false
	w.mu.Unlock()
	for _, key := range unknown {
		w.upkeep.Add(key)
	}
	return nil
}

// unknown are the subscriptions that this process is to write and of which it does not know what stands.
func (w *Writer) unknown() []event.SubscriptionKey {
	w.mu.Lock()
	table := w.table
	w.mu.Unlock()
	var keys []event.SubscriptionKey
	for route := range table.All() {
		w.mu.Lock()
		_, known := w.shown[route.Key]
		_, fresh := w.fresh[route.Key]
		w.mu.Unlock()
		if !known && !fresh && w.owns(route.Key) {
			keys = append(keys, route.Key)
		}
	}
	return keys
}

// found notes what stands of one subscription, and has it written if that is not what should.
func (w *Writer) found(ctx context.Context, identity string, status v1alpha1.WebhookSubscriptionStatus) {
	key := event.NewSubscriptionKey(identity)
	w.mu.Lock()
	route, ok := get(w.table, key)
	_, known := w.shown[key]
	w.mu.Unlock()
	if !ok || known || !w.owns(key) {
		return
	}
	stands := shownOf(ours(status))
	w.mu.Lock()
	if _, known = w.shown[key]; !known {
		w.shown[key] = stands
	}
	w.mu.Unlock()
	wanted, err := w.wanted(ctx, route)
	if err != nil {
		w.upkeep.Add(key)
		return
	}
	if !w.byRevision && wanted.ProgrammedGeneration != stands.programmed {
		w.news.Add(key)
		return
	}
	if !w.sameConditions(wanted.Conditions, stands.conditions) {
		w.lies.tell(key, wrong{size: wrongHealth, news: true})
		w.upkeep.Add(key)
		return
	}
	carryTransitions(wanted.Conditions, stands.conditions, time.Now())
	carryPending(wanted.Deliveries, stands.pending)
	if !w.says(stands, shownOf(wanted)) {
		w.upkeep.Add(key)
	}
}
