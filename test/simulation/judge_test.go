package simulation

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// listed is a delivery as the API shows it.
type listed struct {
	ID, Subscription, State, Reason string
	AttemptCount                    int
	Event                           struct{ ID string }
}

// lists asks the API for all deliveries of a tenant in a state.
func (w *world) lists(ctx context.Context, tenant int, state string) (all []listed, err error) {
	for next := ""; ; {
		var page struct {
			Items    []listed
			Continue string
		}
		path := fmt.Sprintf("/v1/namespaces/%s/deliveries?limit=1000&state=%s%s", w.history.tenants[tenant].name, state, next)
		if err := w.get(ctx, tenant, "http://"+apiAddress+path, func(body io.Reader) error { return json.NewDecoder(body).Decode(&page) }); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Continue == "" {
			return all, nil
		}
		next = "&continue=" + page.Continue
	}
}

func (w *world) get(ctx context.Context, tenant int, url string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+w.cluster.current(tenant).String())
	response, err := w.producer(tenant).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return read(response.Body)
}

// restless lists what still waits, of subscriptions that are there.
func (w *world) restless(ctx context.Context) (waiting []listed, err error) {
	for i := range w.history.tenants {
		for _, state := range []string{"Pending", "Scheduled"} {
			found, err := w.lists(ctx, i, state)
			if err != nil {
				return nil, err
			}
			waiting = append(waiting, found...)
		}
	}
	return waiting, nil
}

// pair is the event and the life of a delivery.
func (w *world) pair(d listed) (pairOf, error) {
	id, err := event.ParseDeliveryID(d.ID)
	if err != nil {
		return pairOf{}, err
	}
	for i := range w.history.tenants {
		for _, l := range w.lives.of(i) {
			if event.NewSubscriptionKey(l.uid) == id.Subscription {
				return pairOf{l.uid, d.Event.ID}, nil
			}
		}
	}
	return pairOf{}, fmt.Errorf("%s is of no subscription that there ever was", d.ID)
}

// finished are the deliveries in the given states, by pair.
func (w *world) finished(ctx context.Context, states ...string) (map[pairOf]listed, error) {
	all := map[pairOf]listed{}
	for i := range w.history.tenants {
		for _, state := range states {
			found, err := w.lists(ctx, i, state)
			if err != nil {
				return nil, err
			}
			for _, d := range found {
				id, err := w.pair(d)
				if err != nil {
					return nil, err
				}
				all[id] = d
			}
		}
	}
	return all, nil
}

// judge compares what became of everything with what was promised.
func (w *world) judge(ctx context.Context) error {
	ended, err := w.finished(ctx, "Failed", "Cancelled")
	if err != nil {
		return err
	}
	m := w.model
	m.mu.Lock()
	var problems []string
	for i := range w.history.tenants {
		for _, l := range w.lives.of(i) {
			for _, e := range m.events {
				if problem := m.verdict(e, &l, ended); problem != "" {
					problems = append(problems, problem)
				}
			}
		}
	}
	for _, o := range m.overtook {
		l, _ := w.lives.get(o[0])
		if !m.wishes(pairOf{o[0], o[1]}).replay.IsZero() { // it had been given up
			continue
		}
		if d, ok := ended[pairOf{o[0], o[1]}]; !ok && l.died.IsZero() {
			problems = append(problems, fmt.Sprintf("order: %s came before %s, which ended as %q", o[2], o[1], d.State))
		}
	}
	m.mu.Unlock()
	for _, problem := range problems {
		w.violated("%s", problem)
	}
	return w.recount(ctx)
}

// verdict says what is wrong with what became of an event for a life; "" if nothing is.
func (m *model) verdict(e *published, l *life, ended map[pairOf]listed) string {
	id := pairOf{l.uid, e.id}
	d, has := ended[id]
	if has && !e.may(l) {
		return fmt.Sprintf("unasked: %s is listed for %s of tenant %d, which does not match it", e.id, l.spec.name, l.tenant)
	}
	taken := m.receipts[id] != nil && !m.receipts[id].taken.IsZero()
	if taken || !e.must(l) || !l.died.IsZero() {
		return ""
	}
	switch {
	case d.State == "Cancelled" && d.Reason == "ByUser" && !m.wishes(id).cancel.IsZero():
		return ""
	case d.State == "Failed" && d.Reason == "" && l.spec.attempts > 0 && d.AttemptCount >= int(l.spec.attempts) && !m.always(*l):
		return ""
	case d.State == "Cancelled" && (d.Reason == "Replaced" || d.Reason == "CancelledByEvent") && m.superseded(e, l, time.Now()):
		return ""
	}
	return fmt.Sprintf("lost: %s, acknowledged at %v and due at %v, was not taken by %s (%s) of tenant %d; it is listed as %q %s after %d attempts",
		e.id, e.acked, e.due, l.spec.name, l.spec.kind, l.tenant, d.State, d.Reason, d.AttemptCount)
}

// recount compares the counts of the store with its lists, and what is in use with what is idle.
func (w *world) recount(ctx context.Context) error {
	opened := w.machine.opened()
	if opened == nil {
		return errUnfinished
	}
	all, err := w.finished(ctx, "Delivered", "Failed", "Cancelled")
	if err != nil {
		return err
	}
	recounted := map[string]map[string]int64{}
	for id, d := range all {
		if recounted[id.uid] == nil {
			recounted[id.uid] = map[string]int64{}
		}
		recounted[id.uid][d.State]++
	}
	for i := range w.history.tenants {
		for _, l := range w.lives.of(i) {
			counts, err := opened.Counts(ctx, event.NewSubscriptionKey(l.uid))
			if err != nil {
				return err
			}
			got := [3]int64{counts.Delivered, counts.Failed, counts.Cancelled}
			want := [3]int64{recounted[l.uid]["Delivered"], recounted[l.uid]["Failed"], recounted[l.uid]["Cancelled"]}
			if w.history.keeps < keepAll { // what is dropped stays counted
				want[0] = w.model.delivered(l.uid, all)
			}
			if w.machine.tidied { // as is what went for lack of space
				for n := range want {
					want[n] = max(got[n], want[n])
				}
			}
			if got != want {
				w.violated("counts: of tenant %d's %s the store counts %d delivered, failed, cancelled, and lists %d", i, l.spec.name, got, want)
			}
		}
	}
	return w.idle(ctx)
}

// delivered is how many deliveries of a life were taken, and did not end otherwise all the same: their outcome was lost.
func (m *model) delivered(uid string, ended map[pairOf]listed) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.receipts {
		state := ended[id].State
		if id.uid == uid && !r.taken.IsZero() && state != "Failed" && state != "Cancelled" {
			n++
		}
	}
	return n
}

// idle checks that what is charged was given back.
func (w *world) idle(ctx context.Context) error {
	return w.get(ctx, 0, "http://"+opsAddress+"/metrics", func(body io.Reader) error {
		lines, seen := bufio.NewScanner(body), 0
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), " ")
			switch name {
			case "eventflow_memory_used_bytes", "eventflow_delivery_in_flight":
				seen++
				if value != "0" {
					w.violated("budget: %s is %s when nothing is to be done", name, value)
				}
			}
		}
		if seen != 2 {
			w.violated("budget: %d of 2 metrics are there", seen)
		}
		return lines.Err()
	})
}
