package ingest

import (
	"context"
	"net/http"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// cancel ends one pending delivery, and answers with it.
func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	id, err := event.ParseDeliveryID(c.delivery)
	if err != nil {
		return 0, deliveryNotFound()
	}
	ctx := context.WithoutCancel(r.Context())
	if err := h.options.Store.Cancel(ctx, c.tenant, id); err != nil {
		return 0, h.storeProblem(err, false)
	}
	record, err := h.options.Store.Get(ctx, c.tenant, id)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	return http.StatusOK, h.answer(w, http.StatusOK, fullViewOf(&record, h.options.Now()))
}

// sendNow makes one planned delivery due, and answers with it. Quotas count it as pending already.
func (h *Handler) sendNow(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	id, err := event.ParseDeliveryID(c.delivery)
	if err != nil {
		return 0, deliveryNotFound()
	}
	ctx := context.WithoutCancel(r.Context()) // as a replay: what the store has begun, the engine has to hear of
	pending, err := h.options.Store.SendNow(ctx, c.tenant, id)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	h.options.Resume([]delivery.PendingDelivery{pending})
	record, err := h.options.Store.Get(ctx, c.tenant, pending.ID)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	return http.StatusAccepted, h.answer(w, http.StatusAccepted, fullViewOf(&record, h.options.Now()))
}
