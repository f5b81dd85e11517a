package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// bookmarkPause is how often an idle watch says up to where it has seen all.
	bookmarkPause = 30 * time.Second
	// writeTimeout is how long a client may take for what is written to it at once.
	writeTimeout = 30 * time.Second
	// initialPage is how many deliveries of those that are there already are held at once.
	initialPage = 200
)

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// matches reports whether a delivery is selected.
func (s *selected) matches(r *store.Record, now time.Time) bool {
	return s.fits(r) && (s.State == "" || s.inState(r, now))
}

// fits reports the same, whatever its state.
func (s *selected) fits(r *store.Record) bool {
	return !s.none && (s.name == "" || s.name == r.ID.String()) && (s.Subscription == "" || s.Subscription == r.Subscription) &&
		(s.EventType == "" || s.EventType == string(r.Type)) && (s.EventID == "" || s.EventID == r.EventID)
}

// inState reports whether a delivery is in the state that is selected. Pending selects what is Scheduled, too.
func (s *selected) inState(r *store.Record, now time.Time) bool {
	return strings.EqualFold(s.State, r.State.String()) || strings.EqualFold(s.State, query.StateOf(r, now))
}

// wasIn reports whether a delivery may have been in the state that is selected, before a change.
func (s *selected) wasIn(before query.Before) bool {
	if s.State == "" {
		return before != 0
	}
	for _, state := range []delivery.State{delivery.Pending, delivery.Delivered, delivery.Failed, delivery.Cancelled} {
		if strings.EqualFold(s.State, state.String()) {
			return before.Has(state)
		}
	}
	return before.Has(delivery.Pending) // Scheduled
}

// stream writes the events of one watch.
type stream struct {
	server  *Server
	call    *call
	writer  http.ResponseWriter
	control *http.ResponseController
	columns bool // were written
}

// watch streams what becomes of the deliveries that are selected, until its time is over or the client leaves.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, c *call) error {
	if c.query.Key != "" {
		return invalid(c, "fieldSelector", v1alpha1.FieldScheduledKey+" selects a list alone")
	}
	if _, err := s.page(r, c, &selected{Selection: query.Selection{State: c.query.State, Subscription: c.query.Subscription}, limit: 1}); err != nil {
		return err // the selector is not valid
	}
	initial := c.query.initial || c.query.resourceVersion == "" || c.query.resourceVersion == "0"
	revision := s.options.Feed.Revision(c.tenant)
	if !initial {
		var err error
		if revision, err = strconv.ParseUint(c.query.resourceVersion, 10, 64); err != nil {
			return badRequest("resourceVersion is none of this API's")
		}
	}
	watching, err := s.options.Feed.Watch(c.tenant, revision)
	if err != nil {
		return statusOf(c, err)
	}
	defer watching.Close()
	give := func() {}
	if initial {
		if give, err = s.charge(c); err != nil {
			return err
		}
	}
	give = sync.OnceFunc(give)
	defer give()
	out := &stream{server: s, call: c, writer: w, control: http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // a server's ReadTimeout would end the watch
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := out.flush(); err != nil {
		return nil
	}
	if initial {
		if err := out.initial(r, revision); err != nil {
			return nil
		}
	}
	give() // what follows is shared
	out.follow(r, watching)
	_ = out.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // for the end of the body: the last write may be long ago
	return nil
}

// initial writes the deliveries that are there, a page at a time, and the bookmark that ends them.
func (o *stream) initial(r *http.Request, revision uint64) error {
	q := o.call.query
	q.limit, q.Continue = initialPage, ""
	for {
		page, err := o.server.page(r, o.call, &q)
		if err != nil {
			o.error(err)
			return err
		}
		for i := range page.Records {
			if err := o.object(watch.Added, &page.Records[i], revision); err != nil {
				return err
			}
		}
		if q.Continue = page.Continue; q.Continue == "" {
			break
		}
	}
	if !o.call.query.initial {
		return o.flush()
	}
	return o.bookmark(revision, true)
}

// follow writes each change, and bookmarks while there is none.
func (o *stream) follow(r *http.Request, watching *query.Watch) {
	end := time.NewTimer(o.call.query.timeout)
	defer end.Stop()
	idle := time.NewTicker(bookmarkPause)
	defer idle.Stop()
	for started := time.Now(); time.Since(started) < o.call.query.timeout; {
		wake := idle.C
		if o.call.query.timeout-time.Since(started) < bookmarkPause {
			wake = end.C
		}
		found, revision, err := watching.Next(r.Context(), wake)
		switch {
		case errors.Is(err, query.ErrExpired):
			o.error(expired())
			return
		case err != nil:
			return
		case len(found) == 0 && o.call.query.bookmarks:
			err = o.bookmark(revision, false)
		default:
			err = o.changes(found)
		}
		if err != nil {
			return
		}
	}
}

// changes writes those that are selected.
func (o *stream) changes(found []query.Change) error {
	q, now := &o.call.query, o.server.options.Deliveries.Now()
	for i := range found {
		change := &found[i]
		if !q.fits(change.Record) {
			continue
		}
		kind := watch.Modified
		switch was := q.wasIn(change.Before); {
		case !q.matches(change.Record, now) && !was:
			continue
		case !q.matches(change.Record, now):
			kind = watch.Deleted // from what is selected
		case !was:
			kind = watch.Added
		}
		if err := o.object(kind, change.Record, change.Revision); err != nil {
			return err
		}
	}
	return o.flush()
}

// object writes one delivery, in the form that was asked for.
func (o *stream) object(kind watch.EventType, r *store.Record, revision uint64) error {
	now := o.server.options.Deliveries.Now()
	object := deliveryOf(r, o.call.Namespace, "", revision, now)
	if o.call.as != asTable {
		return o.write(kind, &object)
	}
	table := newTable(deliveryColumns, listMeta(revision, ""))
	if o.columns {
		table.ColumnDefinitions = nil
	}
	o.columns = true
	table.Rows = append(table.Rows, deliveryRow(&object, now))
	return o.write(kind, table)
}

// bookmark says up to which revision the client has all. last says that what was there already is complete.
func (o *stream) bookmark(revision uint64, last bool) error {
	object := v1alpha1.WebhookDelivery{
		TypeMeta:   metav1.TypeMeta{Kind: "WebhookDelivery", APIVersion: v1alpha1.GroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(revision, 10)},
	}
	if last {
		object.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	var err error
	if o.call.as == asTable {
		table := newTable(nil, listMeta(revision, ""))
		table.Rows = append(table.Rows, row(&object.ObjectMeta))
		err = o.write(watch.Bookmark, table)
	} else {
		err = o.write(watch.Bookmark, &object)
	}
	if err != nil {
		return err
	}
	return o.flush()
}

// error writes why the watch ends.
func (o *stream) error(err error) {
	var status apierrors.APIStatus
	if errors.As(err, &status) && o.write(watch.Error, statusObject(status)) == nil {
		_ = o.flush() // the client is gone if it fails
	}
}

func (o *stream) write(kind watch.EventType, object any) error {
	raw, err := json.Marshal(struct {
		Type   watch.EventType `json:"type"`
		Object any             `json:"object"`
	}{kind, object})
	if err != nil {
		return err
	}
	_ = o.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
	_, err = o.writer.Write(append(raw, '\n'))
	return err
}

func (o *stream) flush() error { return o.control.Flush() }
