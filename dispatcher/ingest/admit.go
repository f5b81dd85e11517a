package ingest

import (
	"errors"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// admit charges the tenant's quotas with what the events cause, or says which of them is used up.
func (h *Handler) admit(s *scratch) error {
	if h.options.Quota == nil {
		return nil
	}
	err := h.options.Quota.Admit(s.body.account.tenant, len(s.events), int64(s.total.deliveries)+s.total.planned, s.total.pendingBytes, s.total.planned)
	exceeded, ok := errors.AsType[*quota.ExceededError](err)
	switch {
	case !ok:
		return err
	case exceeded.RetryAfter == 0:
		return newProblem(tooLarge, "the request is larger than the namespace's quota %s of %d; send fewer events in one request", exceeded.Quota, exceeded.Limit)
	default:
		return newProblem(quotaExceeded, "the namespace's quota %s of %d is used up; send the request again after the time in Retry-After", exceeded.Quota, exceeded.Limit).
			retry(exceeded.RetryAfter)
	}
}

// settle returns what was admitted and not caused: events were repeated, or the store failed. What the store made of plans
// it does not say; the next count of what is pending corrects that.
func (h *Handler) settle(s *scratch, accepted []store.Accepted, fanouts []delivery.Fanout) {
	if h.options.Quota == nil {
		return
	}
	deliveries, bytes, scheduled := int64(s.total.deliveries)+s.total.planned, s.total.pendingBytes, s.total.planned
	for i := range fanouts {
		n := int64(len(fanouts[i].Subscriptions))
		deliveries -= n
		bytes -= n * int64(len(fanouts[i].Event.Body))
	}
	for i := range accepted {
		if !accepted[i].Repeated {
			n := planned(s.events[i].Plans)
			deliveries -= n
			scheduled -= n
			bytes -= n * int64(len(s.events[i].Event.Body))
		}
	}
	h.options.Quota.AddScheduled(s.body.account.tenant, -deliveries, -bytes, -scheduled)
}
