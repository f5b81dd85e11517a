package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// MaxLimit is how many deliveries one List answers with at most.
const MaxLimit = 1000

// maxNameLength is how long a subscription's name can be (RFC 1123 subdomain).
const maxNameLength = 253

// StateScheduled is a view of Pending: the delivery waits for its planned time.
const StateScheduled = "Scheduled"

// InvalidError says what is wrong with a request, and what it may be. It repeats no value of the request.
type InvalidError struct{ Detail string }

// Error is the detail.
func (e *InvalidError) Error() string { return e.Detail }

func invalid(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// Options are what Deliveries work with.
type Options struct {
	// Store keeps the deliveries.
	Store store.Store
	// Resume hands what became pending again to the engine. It must not block for long.
	Resume func([]delivery.PendingDelivery)
	// Quota counts what a replay makes pending; nil counts nothing. It never refuses a replay.
	Quota *quota.Keeper
	// Now is the time by the store's clock; nil for time.Now.
	Now func() time.Time
}

// Deliveries are those of a store. They are safe for concurrent use. Errors are those of the store, of the context, or an
// *InvalidError.
type Deliveries struct{ options Options }

// New returns the deliveries of a store. It fails if an option is missing.
func New(options Options) (*Deliveries, error) {
	if options.Store == nil || options.Resume == nil {
		return nil, errors.New("query needs a Store and Resume")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	return &Deliveries{options: options}, nil
}

// Now is the time by the store's clock.
func (d *Deliveries) Now() time.Time { return d.options.Now() }

// Selection says which of a tenant's deliveries are meant. What is empty selects all.
type Selection struct {
	Tenant string
	// Subscription is a name.
	Subscription string
	// State is Pending, Scheduled, Delivered, Failed or Cancelled, in any case of letters.
	State string
	// Key is the key of the subscription's schedule. It needs a Subscription.
	Key string
	// EventID and EventType select by the event; an id also where several events had it. A page of a List by these may have
	// few deliveries, or none, and go on.
	EventID, EventType string
	// Since and Until bound the event's acceptance: since ≤ t < until.
	Since, Until time.Time
	// LastAttempt asks for the newest attempt of each delivery, too.
	LastAttempt bool
	// Continue is the token of the answer before.
	Continue string
}

// query is what the store is asked for. purpose keeps the tokens of a list and of a replay apart.
func (s *Selection) query(purpose string) (q store.Query, err error) {
	q = store.Query{Tenant: s.Tenant, Subscription: s.Subscription, Since: s.Since, Until: s.Until, LastAttempt: s.LastAttempt}
	s.narrow(&q)
	if len(s.Subscription) > maxNameLength {
		return q, invalid("subscription must be a subscription's name")
	}
	if q.State, q.Scheduled, err = parseState(s.State); err != nil {
		return q, err
	}
	if s.Key != "" {
		if q.Subscription == "" {
			return q, invalid("key is the key of one subscription's schedule: name the subscription, too")
		}
		if q.Key, err = plan.NewKey(s.Key); err != nil {
			return q, invalid("%v", err) // it does not show the key
		}
	}
	if s.Continue != "" {
		q.Before, err = parseContinueToken(purpose, &q, s.Continue)
	}
	return q, err
}

func parseState(text string) (state delivery.State, scheduled bool, err error) {
	if text == "" {
		return 0, false, nil
	}
	if strings.EqualFold(text, StateScheduled) {
		return delivery.Pending, true, nil
	}
	for _, state := range []delivery.State{delivery.Pending, delivery.Delivered, delivery.Failed, delivery.Cancelled} {
		if strings.EqualFold(text, state.String()) {
			return state, false, nil
		}
	}
	return 0, false, invalid("state must be Pending, Scheduled, Delivered, Failed or Cancelled")
}

// StateOf returns the state of a delivery as answers show it: one that waits for its planned time is Scheduled.
func StateOf(r *store.Record, now time.Time) string {
	waits := r.State == delivery.Pending && r.AttemptCount == 0 && !r.Planned.IsZero() && r.Due.Equal(r.Planned) && r.Planned.After(now)
	if waits {
		return StateScheduled
	}
	return r.State.String()
}

// Page is an answer to List: deliveries without their attempts, newest first by event.
type Page struct {
	Records []store.Record
	// Continue goes on behind the last record; empty if there is nothing more.
	Continue string
}

// List returns the first deliveries that s selects, at most limit, which is from 1 to MaxLimit.
func (d *Deliveries) List(ctx context.Context, s Selection, limit int) (page Page, err error) {
	if limit < 1 || limit > MaxLimit {
		return page, invalid("limit must be between 1 and %d", MaxLimit)
	}
	purpose := s.purpose("list")
	q, err := s.query(purpose)
	if err != nil {
		return page, err
	}
	for scanned := 0; ; {
		q.Limit = limit + 1 // one more reports whether there are more
		if s.byEvent() {
			q.Limit = scanPageSize
		}
		records, err := d.options.Store.List(ctx, q)
		if err != nil {
			return Page{}, err
		}
		for i := range records {
			if !s.selects(&records[i]) {
				continue
			}
			if len(page.Records) == limit {
				page.Continue = continueToken(purpose, &q, page.Records[limit-1].ID)
				return page, nil
			}
			page.Records = append(page.Records, records[i])
		}
		if len(records) < q.Limit {
			return page, nil
		}
		q.Before = records[len(records)-1].ID
		if scanned += len(records); scanned >= maxScanned {
			page.Continue = continueToken(purpose, &q, q.Before)
			return page, nil
		}
	}
}

// Get returns the delivery that has the given text as its id, with its attempts. A text that no dispatcher wrote is
// store.ErrNotFound, like an id that the tenant does not have.
func (d *Deliveries) Get(ctx context.Context, tenant, id string) (store.Record, error) {
	parsed, err := parseID(id)
	if err != nil {
		return store.Record{}, err
	}
	return d.options.Store.Get(ctx, tenant, parsed)
}

func parseID(text string) (event.DeliveryID, error) {
	id, err := event.ParseDeliveryID(text)
	if err != nil {
		return id, store.ErrNotFound
	}
	return id, nil
}

// Cancel ends a pending delivery, and returns it as it is then. store.ErrNotFound, ErrNotPending and others of Store.Cancel.
func (d *Deliveries) Cancel(ctx context.Context, tenant, id string) (store.Record, error) {
	parsed, err := parseID(id)
	if err != nil {
		return store.Record{}, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := d.options.Store.Cancel(ctx, tenant, parsed); err != nil {
		return store.Record{}, err
	}
	return d.options.Store.Get(ctx, tenant, parsed)
}

// SendNow makes a planned delivery due, hands it to the engine, and returns it as it is then. Quotas count it as pending
// already. store.ErrNotFound, ErrNotPending and others of Store.SendNow.
func (d *Deliveries) SendNow(ctx context.Context, tenant, id string) (store.Record, error) {
	parsed, err := parseID(id)
	if err != nil {
		return store.Record{}, err
	}
	ctx = context.WithoutCancel(ctx) // what the store has begun, the engine has to hear of
	pending, err := d.options.Store.SendNow(ctx, tenant, parsed)
	if err != nil {
		return store.Record{}, err
	}
	d.options.Resume([]delivery.PendingDelivery{pending})
	return d.options.Store.Get(ctx, tenant, pending.ID)
}
