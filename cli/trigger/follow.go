package trigger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/client"
)

const (
	// pollInterval is how often a delivery is asked for.
	pollInterval = 250 * time.Millisecond
	// maxSeen bounds the search for an event's deliveries, which begins with the newest.
	maxSeen = 20 * client.MaxLimit
	// unattemptedFor is how long a delivery may be without an attempt before the cluster is asked why. Most are attempted at once.
	unattemptedFor = time.Second
)

// follower prints the state changes of an event's deliveries.
type follower struct {
	api          *api
	out          io.Writer
	event        string
	subscription string // "" for all
	now          func() time.Time
	timeout      time.Duration

	deadline time.Time
	failed   []string // the subscriptions whose deliveries failed
	left     int      // deliveries that are planned for later than the deadline
	idle     bool     // a delivery that is waited for was not attempted
}

// run follows the deliveries that the event has.
func (f *follower) run(ctx context.Context, count int) error {
	f.deadline = f.now().Add(f.timeout)
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	all, err := f.find(within, count)
	if err != nil {
		return err
	}
	if len(all) == 0 && f.subscription != "" {
		return fmt.Errorf("subscription %s has no delivery of the event: eventflow test says why it does not match", f.subscription)
	}
	pending := make([]*client.Delivery, 0, len(all))
	for i := range all {
		if f.goesOn(&all[i], nil) {
			pending = append(pending, &all[i])
		}
	}
	err = f.wait(within, pending)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded) && f.idle:
		return fmt.Errorf("a delivery was not attempted within %s: see whether its subscription is suspended, or its consumer pulls, with \"kubectl -n %s describe webhooksubscriptions\"", f.timeout, f.api.namespace)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("a delivery has not ended within %s: follow it with a longer --timeout, or list it through the deliveries API", f.timeout)
	case err != nil:
		return err
	case len(f.failed) > 0:
		return fmt.Errorf("the delivery to %s failed", strings.Join(f.failed, ", "))
	}
	return nil
}

// find returns the event's deliveries, of which there are count, with their attempts.
func (f *follower) find(ctx context.Context, count int) (all []client.Delivery, err error) {
	if count == 0 {
		return nil, nil
	}
	found, seen := 0, 0
	for d, err := range f.api.client.All(ctx, f.api.namespace, client.Query{}) {
		if err != nil {
			return nil, f.api.explained(err)
		}
		if d.Event.ID == f.event {
			found++
			if f.subscription == "" || d.Subscription == f.subscription {
				all = append(all, d)
			}
		}
		if seen++; found >= count || seen == maxSeen {
			break
		}
	}
	for i := range all {
		if all[i], err = f.api.get(ctx, all[i].ID); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// wait asks for the deliveries until each has ended.
func (f *follower) wait(ctx context.Context, pending []*client.Delivery) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	ask, asked := f.now().Add(unattemptedFor), false
	var pulled map[string]bool
	for len(pending) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		waiting := pending[:0]
		for _, before := range pending {
			d, err := f.api.get(ctx, before.ID)
			if err != nil {
				return errors.Join(ctx.Err(), err)
			}
			if f.goesOn(&d, before) {
				waiting = append(waiting, &d)
			}
		}
		pending = waiting
		if !asked && slices.ContainsFunc(pending, isIdle) && !f.now().Before(ask) {
			pulled, asked = f.api.pulled(ctx, f.subscription), true
		}
		pending = f.leavePulled(pending, pulled)
		f.idle = slices.ContainsFunc(pending, isIdle)
	}
	return nil
}

// isIdle reports whether a delivery is due, and was not attempted.
func isIdle(d *client.Delivery) bool { return d.State == client.Pending && d.AttemptCount == 0 }

// leavePulled says which deliveries wait for a consumer that pulls, and returns the others.
func (f *follower) leavePulled(pending []*client.Delivery, pulled map[string]bool) []*client.Delivery {
	return slices.DeleteFunc(pending, func(d *client.Delivery) bool {
		if !isIdle(d) || !pulled[d.Subscription] {
			return false
		}
		fmt.Fprintf(f.out, "%s  %-24s Pending: it waits until the consumer pulls, and is not followed\n", f.now().Format(time.TimeOnly), d.Subscription)
		return true
	})
}

// goesOn prints what has changed of a delivery, and reports whether it is waited for.
func (f *follower) goesOn(d, before *client.Delivery) bool {
	if before == nil || d.State != before.State || d.AttemptCount != before.AttemptCount || d.Reason != before.Reason || !d.NextAttemptTime.Equal(before.NextAttemptTime) {
		fmt.Fprintf(f.out, "%s  %-24s %s\n", f.now().Format(time.TimeOnly), d.Subscription, shown(d))
	}
	switch d.State {
	case client.Delivered, client.Cancelled:
		return false
	case client.Failed:
		f.failed = append(f.failed, d.Subscription)
		return false
	case client.Scheduled:
		if d.PlannedTime.After(f.deadline) {
			f.left++
			return false
		}
	case client.Pending:
	}
	return true
}

// shown is a delivery's state in words.
func shown(d *client.Delivery) string {
	text := string(d.State)
	if d.Reason != "" {
		text += " (" + d.Reason + ")"
	}
	last := client.Attempt{}
	for _, a := range d.Attempts {
		if a.Number > last.Number {
			last = a
		}
	}
	switch {
	case d.State == client.Scheduled:
		text += " for " + d.PlannedTime.Format(time.RFC3339)
	case last.Number > 0:
		text += fmt.Sprintf(", attempt %d: %s", last.Number, shownAttempt(&last))
	}
	if d.State == client.Pending && !d.NextAttemptTime.IsZero() {
		text += "; next attempt at " + d.NextAttemptTime.Format(time.RFC3339)
	}
	return text
}

func shownAttempt(a *client.Attempt) string {
	var parts []string
	if a.Error != "" {
		parts = append(parts, a.Error)
	}
	if a.StatusCode != 0 {
		parts = append(parts, fmt.Sprintf("answer %d", a.StatusCode))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d ms", a.Duration.Milliseconds())), ", ")
}
