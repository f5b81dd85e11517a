package ingest

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The media types of events.
const (
	jsonType            = "application/json"
	cloudEventType      = "application/cloudevents+json"
	cloudEventBatchType = "application/cloudevents-batch+json"
)

// publish accepts the events of a request.
func (h *Handler) publish(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	table := h.options.Routes()
	if table == nil {
		return 0, newProblem(unavailable, "the dispatcher has not loaded its subscriptions yet; send the request again").retry(time.Second)
	}
	trace := traceparent(r.Header["Traceparent"])
	span := h.options.Tracer.Publish(c.namespace, trace)
	defer func() { span.End(traced(status, err)) }()
	mediaType, err := mediaTypeOf(r.Header, h.open())
	if err != nil {
		return 0, err
	}
	s := h.scratch.Get().(*scratch)
	s.body.account.tenant, s.trace = c.tenant, h.options.Tracer.Context(span, trace)
	defer func() {
		s.place.give()
		s.reset()
		h.scratch.Put(s)
	}()
	if err := h.receive(w, r, c.tenant, &s.body, maxRequestBytes); err != nil {
		return 0, err
	}
	if h.options.Unlock != nil { // before the place, which others need
		if err := h.options.Unlock(context.WithoutCancel(r.Context()), c.tenant); err != nil {
			return 0, h.storeProblem(err, false)
		}
	}
	s.place = place{pool: h.places, tenant: c.tenant, size: placesOf(len(s.body.bytes))}
	if err := s.place.take(r.Context()); err != nil {
		return 0, err
	}
	if h.options.Terms != nil {
		s.parser.catalog, s.parser.maxEvent = h.options.Terms()
	}
	batch, err := s.parse(r.Header, mediaType)
	if err != nil {
		return 0, err
	}
	matched := span.Step("match")
	err = s.prepare(r.Context(), table, h.filters)
	matched()
	if err != nil {
		return 0, err
	}
	if err := s.place.take(r.Context()); err != nil { // filters gave it back
		return 0, err
	}
	if err := h.admit(s); err != nil {
		return 0, err
	}
	stored := span.Step("store")
	accepted, err := h.appendEvents(r.Context(), s, batch)
	stored()
	s.place.give()
	if err != nil {
		return 0, err
	}
	h.noteUnordered(s.parser.takeUnordered(), c.namespace)
	status = h.count(accepted)
	s.answer = appendAnswer(s.answer, accepted, batch)
	writeJSON(w, status, s.answer)
	return status, nil
}

// traced is what the span of a publish says of its end.
func traced(status int, err error) (code int, reason string) {
	if err == nil {
		return status, ""
	}
	kind := asProblem(err).kind
	return kind.status, kind.name
}

// receive reads the request's body, of at most limit bytes, within the limits of uploads.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, tenant string, into *bodyBuffer, limit int) error {
	upload, err := h.uploads.begin(w, r, tenant)
	if err != nil {
		return err
	}
	defer upload.end()
	return into.read(r, limit)
}

// mediaTypeOf returns the body's media type, if it is one that events come in. None at all counts as JSON, as it does
// at the Kubernetes API server: there is nothing else that it could be (RFC 9110, section 8.3). Without authentication it
// has to be named: a web page can send a body without a type, or of a type that is not JSON, to any address that its
// reader's browser reaches, and cannot name JSON or send ce-* headers unless the address agrees (Fetch, CORS-safelisted
// request-headers).
func mediaTypeOf(header http.Header, named bool) (string, error) {
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", newProblem(unsupportedMedia, "send the body without Content-Encoding").with("Accept-Encoding", "identity")
	}
	values := header["Content-Type"]
	if len(values) == 0 && named && !isBinaryCloudEvent(header) {
		return "", wrongMediaType()
	}
	if len(values) == 0 || (len(values) == 1 && values[0] == jsonType) {
		return jsonType, nil
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	known := mediaType == jsonType || mediaType == cloudEventType || mediaType == cloudEventBatchType ||
		(isBinaryCloudEvent(header) && isJSON(mediaType))
	if err != nil || len(values) > 1 || !known {
		return "", wrongMediaType()
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", newProblem(unsupportedMedia, "send the body as UTF-8")
	}
	return mediaType, nil
}

func wrongMediaType() error {
	return newProblem(unsupportedMedia, "send Content-Type %s, %s or %s", jsonType, cloudEventType, cloudEventBatchType).
		with("Accept", jsonType+", "+cloudEventType+", "+cloudEventBatchType)
}

// appendEvents makes events durable and hands their deliveries on. It does not end when the client leaves: deliveries
// that the store holds and the engine does not know would wait for a restart.
func (h *Handler) appendEvents(ctx context.Context, s *scratch, batch bool) ([]store.Accepted, error) {
	events := s.events
	if len(events) == 0 {
		return nil, nil
	}
	accepted, fanouts, err := h.options.Store.Append(context.WithoutCancel(ctx), events)
	h.settle(s, accepted, fanouts)
	if err != nil {
		return nil, h.storeProblem(err, batch)
	}
	if len(fanouts) > 0 {
		h.options.Accept(fanouts)
	}
	h.tellGivenUp(events, accepted)
	return accepted, nil
}

// tellGivenUp passes on which deliveries ended as they were stored, because they could not be planned.
func (h *Handler) tellGivenUp(events []store.NewEvent, accepted []store.Accepted) {
	if h.options.GivenUp == nil {
		return
	}
	for i := range events {
		for j := range events[i].Plans {
			if p := &events[i].Plans[j]; p.Failed && !accepted[i].Repeated {
				h.options.GivenUp(event.DeliveryID{Event: events[i].Event.Key, Subscription: p.Subscription.Key})
			}
		}
	}
}

// storeProblem says what to do about an error of the store.
func (h *Handler) storeProblem(err error, batch bool) error {
	if conflict, ok := errors.AsType[*store.ConflictError](err); ok {
		p := newProblem(idConflict, "id %s was accepted within the last 24 hours with other content; give a new event an id of its own", conflict.ID)
		if batch {
			return p.at(conflict.Index)
		}
		return p
	}
	if refused, ok := errors.AsType[*query.InvalidError](err); ok {
		return newProblem(malformed, "%s", refused.Detail)
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return newProblem(idConflict, "an event with this id was accepted within the last 24 hours with other content; give a new event an id of its own")
	case errors.Is(err, store.ErrNotFound):
		return deliveryNotFound()
	case errors.Is(err, store.ErrStillPending):
		return newProblem(stillPending, "the delivery is on its way already; replay it once it is Delivered, Failed or Cancelled")
	case errors.Is(err, store.ErrNotPending):
		return newProblem(notPending, "the delivery is Delivered, Failed or Cancelled already; a replay delivers it again")
	case errors.Is(err, store.ErrFull):
		return newProblem(unavailable, "the store has too little space left to accept more; send the request again later").retry(10 * time.Second)
	case errors.Is(err, store.ErrReadOnly):
		return newProblem(unavailable, "the database takes no writes now; send the request again later").retry(10 * time.Second)
	case errors.Is(err, store.ErrKeys):
		h.options.Logger.Error(err, "The encryption key of a namespace could not be had; what needs it waits, or is refused")
		return newProblem(unavailable, "the namespace's encryption key is not available now; send the request again later").retry(5 * time.Second)
	case errors.Is(err, store.ErrErased):
		return newProblem(notFound, "the namespace's encryption key was deleted, and what was stored with it cannot be read any more")
	case errors.Is(err, store.ErrClosed):
		return newProblem(unavailable, "the dispatcher is stopping; send the request again").retry(time.Second)
	}
	h.options.Logger.Error(err, "The store failed a request")
	return newProblem(unavailable, "the store could not do this; send the request again, with the same event ids").retry(2 * time.Second)
}

// count counts what was accepted and returns the status that says so: 200 if nothing is new.
func (h *Handler) count(accepted []store.Accepted) (status int) {
	repeated := 0
	for i := range accepted {
		if accepted[i].Repeated {
			repeated++
		}
	}
	h.metrics.repeated.Add(float64(repeated))
	h.metrics.accepted.Add(float64(len(accepted) - repeated))
	if repeated == len(accepted) {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// appendAnswer appends the answer to a publish. Ids need no escaping.
func appendAnswer(b []byte, accepted []store.Accepted, batch bool) []byte {
	if batch {
		b = append(b, '[')
	}
	for i := range accepted {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = append(b, accepted[i].ID...)
		b = append(b, `","deliveries":`...)
		b = strconv.AppendInt(b, int64(accepted[i].Deliveries), 10)
		b = append(b, '}')
	}
	if batch {
		b = append(b, ']')
	}
	return append(b, '\n')
}

// jsonTypes and noStore are header values that every answer shares; net/http only reads them.
var (
	jsonTypes = []string{jsonType}
	noStore   = []string{"no-store"}
)

// writeJSON answers with body. If that fails, the client is gone.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Content-Type"] = jsonTypes
	header["Cache-Control"] = noStore
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and declared so
}
