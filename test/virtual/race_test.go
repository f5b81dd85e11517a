package virtual

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// witness notes in which order cancellations are acknowledged and attempts begin.
type witness struct {
	mu     sync.Mutex
	moment int
	acked  map[string]int // appointments, by the moment at which the publisher had its answer
	begun  map[event.DeliveryID]int
	times  map[event.DeliveryID]int // how often each began
}

func (w *witness) tick() int { w.moment++; return w.moment }

func (w *witness) cancelled(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[id] = w.tick()
}

// watched is a store whose Start is witnessed.
type watched struct {
	store.Store
	witness *witness
}

// Start is the moment at which an attempt begins: what the store refuses to start is not sent.
func (s watched) Start(ctx context.Context, d delivery.PendingDelivery) (bool, error) {
	s.witness.mu.Lock()
	asked := s.witness.tick()
	s.witness.mu.Unlock()
	ok, err := s.Store.Start(ctx, d)
	if ok {
		s.witness.mu.Lock()
		s.witness.begun[d.ID] = max(s.witness.begun[d.ID], asked) // the last attempt counts
		s.witness.times[d.ID]++
		s.witness.mu.Unlock()
	}
	return ok, err
}

var _ delivery.Store = watched{}

// TestCancelRace: many clients book, move and cancel appointments at the moments at which their reminders fall due. No
// attempt begins of a delivery whose cancellation was acknowledged, and what nobody cancelled goes once.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, p place) {
		const clients, each = 16, 12
		w := &witness{acked: map[string]int{}, begun: map[event.DeliveryID]int{}, times: map[event.DeliveryID]int{}}
		c := newClinic(t, "2026-01-12 10:00", "sms")
		c.watch = func(s store.Store) store.Store { return watched{s, w} }
		p.begin(c)
		var running sync.WaitGroup
		for client := range clients {
			running.Go(func() { c.bookAndCancel(w, client, each) })
		}
		done := make(chan struct{})
		go func() { running.Wait(); close(done) }()
		for racing := true; racing; { // the clock runs while they publish
			select {
			case <-done:
				racing = false
			case <-time.After(5 * time.Millisecond):
				c.clock.set(c.clock.now().Add(time.Second))
				c.kick()
			}
		}
		for end := c.clock.now().Add(120 * time.Hour); c.clock.now().Before(end); c.settle() {
			c.clock.set(c.clock.now().Add(6 * time.Hour))
		}
		c.judge(w, clients*each)
	})
}

// bookAndCancel is a client. Each of its appointments is booked so that the reminder is due a few seconds later; of four, one
// is kept, one moved, and two are cancelled.
func (c *clinic) bookAndCancel(w *witness, client, count int) {
	for i := range count {
		id := fmt.Sprintf("appt_%d_%d", client, i)
		start := c.clock.now().Add(24*time.Hour + time.Duration(2+i%4)*time.Second)
		publish := func(kind, status string, start time.Time) {
			text, err := json.Marshal(map[string]any{"id": id + ":" + kind, "type": kind, "data": map[string]any{
				"id": id, "status": status, "patientPhone": phone, "start": start.Format(time.RFC3339), "end": start.Add(time.Hour).Format(time.RFC3339),
			}})
			if err != nil {
				panic(err)
			}
			node := c.nodes[(client+i)%len(c.nodes)]
			if got := node.do(c.Context(), http.MethodPost, "/events", string(text)); got.Code != http.StatusAccepted {
				c.Errorf("%s: %d %s", kind, got.Code, got.Body)
			}
		}
		publish(created, "booked", start)
		if i%4 == 3 {
			continue
		}
		until := c.clock.now().Add(time.Duration(i%3) * time.Second)
		for c.clock.now().Before(until) && c.Context().Err() == nil {
			<-time.After(time.Millisecond)
		}
		switch i % 4 {
		case 0:
			publish(deleted, "booked", start)
			w.cancelled(id)
		case 1:
			publish(updated, "cancelled", start)
			w.cancelled(id)
		case 2:
			publish(updated, "booked", start.Add(48*time.Hour))
		}
	}
}

// judge compares what became of each reminder with what the witness saw.
func (c *clinic) judge(w *witness, appointments int) {
	c.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	kept, ended := 0, map[string]int{}
	for _, state := range []string{"Delivered", "Cancelled", "Failed", "Pending", "Scheduled"} {
		all := c.all(state)
		ended[state] = len(all)
		for _, v := range all {
			id, err := event.ParseDeliveryID(v.ID)
			if err != nil {
				c.Fatal(err)
			}
			acked := w.acked[appointmentOf(v)]
			switch begun := w.begun[id]; {
			case acked != 0 && begun > acked:
				c.Errorf("%+v began after its cancellation was acknowledged", v)
			case state == "Delivered" && begun == 0:
				c.Errorf("%+v was delivered and never begun", v)
			case state == "Delivered" && v.Subscription == "sms-reminder":
				kept++
			}
		}
	}
	c.Logf("%d appointments, %d reminders went, ended: %v", appointments, kept, ended)
	if ended["Pending"]+ended["Scheduled"]+ended["Failed"] > 0 {
		c.Errorf("something is left: %v", ended)
	}
	sent := map[string]int{}
	for _, r := range c.Twilio.All() {
		sent[r.Header.Get("X-Clinik-Delivery-Id")]++
	}
	if len(sent) != ended["Delivered"] {
		c.Errorf("messages of %d deliveries, %d are Delivered", len(sent), ended["Delivered"])
	}
	for id, times := range sent { // more than once: a replica whose lease moved to another one began it, too
		if d, err := event.ParseDeliveryID(id); err != nil || times > w.times[d] {
			c.Errorf("%d messages of %s, which began %d times, %v", times, id, w.times[d], err)
		}
	}
	if len(c.nodes) == 1 {
		for id, times := range sent {
			if times > 1 {
				c.Errorf("%d messages of %s from one dispatcher", times, id)
			}
		}
	}
}

// all are the deliveries in a state, page by page.
func (c *clinic) all(state string) (all []view) {
	c.Helper()
	for next := ""; ; {
		var list struct {
			Items    []view
			Continue string
		}
		c.ask(c.nodes[0], http.MethodGet, "/deliveries?limit=1000&state="+state+next, "", http.StatusOK, &list)
		all = append(all, list.Items...)
		if list.Continue == "" {
			return all
		}
		next = "&continue=" + list.Continue
	}
}

// appointmentOf is the appointment of a delivery's event.
func appointmentOf(v view) string {
	id, _, _ := strings.Cut(v.Event.ID, ":")
	return id
}
