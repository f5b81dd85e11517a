package apiserver

import (
	"encoding/json"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// maxOptions bounds the body of a create of a subresource.
const maxOptions = 16 << 10

// get answers with one delivery.
func (s *Server) get(w http.ResponseWriter, r *http.Request, c *call) error {
	revision := s.options.Feed.Revision(c.tenant)
	record, err := s.options.Deliveries.Get(r.Context(), c.tenant, c.Name)
	return s.answer(w, c, http.StatusOK, &record, revision, err)
}

// answer answers with one delivery, unless there is an error.
func (s *Server) answer(w http.ResponseWriter, c *call, code int, record *store.Record, revision uint64, err error) error {
	if err != nil {
		return statusOf(c, err)
	}
	now := s.options.Deliveries.Now()
	object := deliveryOf(record, c.Namespace, "", revision, now)
	if c.as == asTable {
		table := newTable(deliveryColumns, listMeta(revision, ""))
		table.Rows = append(table.Rows, deliveryRow(&object, now))
		write(w, code, table)
		return nil
	}
	write(w, code, &object)
	return nil
}

// page returns the next deliveries that a call selects.
func (s *Server) page(r *http.Request, c *call, q *selected) (query.Page, error) {
	if q.none {
		return query.Page{}, nil
	}
	if q.name == "" {
		q.Tenant = c.tenant
		page, err := s.options.Deliveries.List(r.Context(), q.Selection, q.limit)
		if err != nil {
			return page, statusOf(c, err)
		}
		return page, nil
	}
	record, err := s.options.Deliveries.Get(r.Context(), c.tenant, q.name)
	if err != nil {
		if err = statusOf(c, err); isNotFound(err) {
			return query.Page{}, nil
		}
		return query.Page{}, err
	}
	record.Attempts = record.Listed(true)
	if !q.matches(&record, s.options.Deliveries.Now()) {
		return query.Page{}, nil
	}
	return query.Page{Records: []store.Record{record}}, nil
}

// list answers with the deliveries that are selected.
func (s *Server) list(w http.ResponseWriter, r *http.Request, c *call) error {
	revision := s.options.Feed.Revision(c.tenant) // before the list: what changes meanwhile, a watch from here tells again
	page, err := s.page(r, c, &c.query)
	if err != nil {
		return err
	}
	now, meta := s.options.Deliveries.Now(), listMeta(revision, page.Continue)
	table := newTable(deliveryColumns, meta)
	list := v1alpha1.WebhookDeliveryList{
		TypeMeta: metav1.TypeMeta{Kind: "WebhookDeliveryList", APIVersion: v1alpha1.GroupVersion.String()},
		ListMeta: meta, Items: make([]v1alpha1.WebhookDelivery, 0, len(page.Records)),
	}
	for i := range page.Records {
		object := deliveryOf(&page.Records[i], c.Namespace, c.query.Key, revision, now)
		if c.as == asTable {
			table.Rows = append(table.Rows, deliveryRow(&object, now))
		} else {
			list.Items = append(list.Items, object)
		}
	}
	if c.as == asTable {
		write(w, http.StatusOK, table)
	} else {
		write(w, http.StatusOK, &list)
	}
	return nil
}

// change replays, cancels or sends a delivery now.
func (s *Server) change(w http.ResponseWriter, r *http.Request, c *call) error {
	body := http.MaxBytesReader(w, r.Body, maxOptions)
	var options metav1.TypeMeta
	if r.ContentLength != 0 {
		if err := json.NewDecoder(body).Decode(&options); err != nil {
			return badRequest("the body must be empty, or an object such as ReplayOptions as JSON")
		}
	}
	if r.URL.Query().Get("dryRun") != "" {
		return badRequest("dryRun is not known here")
	}
	kinds := map[string]string{v1alpha1.SubresourceReplay: "ReplayOptions", v1alpha1.SubresourceCancel: "CancelOptions", v1alpha1.SubresourceSendNow: "SendNowOptions"}
	if want := kinds[c.Subresource]; options.Kind != "" && options.Kind != want {
		return invalid(c, "kind", "the body of "+c.Subresource+" is of kind "+want)
	}
	do := s.options.Deliveries.Replay
	switch c.Subresource {
	case v1alpha1.SubresourceCancel:
		do = s.options.Deliveries.Cancel
	case v1alpha1.SubresourceSendNow:
		do = s.options.Deliveries.SendNow
	}
	record, err := do(r.Context(), c.tenant, c.Name)
	return s.answer(w, c, http.StatusCreated, &record, s.options.Feed.Revision(c.tenant), err)
}

// getEvent answers with one event.
func (s *Server) getEvent(w http.ResponseWriter, r *http.Request, c *call) error {
	found, err := s.options.Deliveries.Event(r.Context(), c.tenant, c.Name)
	if err != nil {
		return statusOf(c, err)
	}
	now, revision := s.options.Deliveries.Now(), s.options.Feed.Revision(c.tenant)
	object := eventOf(&found, c.Namespace, revision, now)
	if c.as == asTable {
		table := newTable(eventColumns, listMeta(revision, ""))
		table.Rows = append(table.Rows, eventRow(&object, now))
		write(w, http.StatusOK, table)
		return nil
	}
	write(w, http.StatusOK, &object)
	return nil
}

// listEvents answers with the events that are selected.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request, c *call) error {
	q := c.query
	q.Tenant = c.tenant
	if q.name != "" {
		q.none = q.none || q.EventID != "" && q.EventID != q.name
		q.EventID = q.name
	}
	var page query.EventPage
	if !q.none {
		var err error
		if page, err = s.options.Deliveries.Events(r.Context(), q.Selection, q.limit); err != nil {
			return statusOf(c, err)
		}
	}
	now, revision := s.options.Deliveries.Now(), s.options.Feed.Revision(c.tenant)
	meta := listMeta(revision, page.Continue)
	table := newTable(eventColumns, meta)
	list := v1alpha1.WebhookEventList{
		TypeMeta: metav1.TypeMeta{Kind: "WebhookEventList", APIVersion: v1alpha1.GroupVersion.String()},
		ListMeta: meta, Items: make([]v1alpha1.WebhookEvent, 0, len(page.Events)),
	}
	for i := range page.Events {
		object := eventOf(&page.Events[i], c.Namespace, revision, now)
		if c.as == asTable {
			table.Rows = append(table.Rows, eventRow(&object, now))
		} else {
			list.Items = append(list.Items, object)
		}
	}
	if c.as == asTable {
		write(w, http.StatusOK, table)
	} else {
		write(w, http.StatusOK, &list)
	}
	return nil
}

// payload answers with what the producer published. Nothing on the way may keep it.
func (s *Server) payload(w http.ResponseWriter, r *http.Request, c *call) error {
	found, e, err := s.options.Deliveries.Payload(r.Context(), c.tenant, c.Name)
	if err != nil {
		return statusOf(c, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	write(w, http.StatusOK, &v1alpha1.WebhookEventPayload{
		TypeMeta:   metav1.TypeMeta{Kind: "WebhookEventPayload", APIVersion: v1alpha1.GroupVersion.String()},
		ObjectMeta: metaOf(c.Namespace, found.ID, found.Accepted, s.options.Feed.Revision(c.tenant)),
		Body:       runtime.RawExtension{Raw: e.Body},
	})
	return nil
}
