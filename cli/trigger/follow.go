package trigger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// pollInterval is how often a delivery is asked for.
	pollInterval = 250 * time.Millisecond
	// maxPages bounds the search for an event's deliveries: each page has 1,000, the newest first.
	maxPages = 20
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
	pending := make([]*delivery, 0, len(all))
	for i := range all {
		if f.goesOn(&all[i], nil) {
			pending = append(pending, &all[i])
		}
	}
	err = f.wait(within, pending)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
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
func (f *follower) find(ctx context.Context, count int) (all []delivery, err error) {
	token, found := "", 0
	for range maxPages {
		if found >= count {
			break
		}
		page, next, err := f.api.list(ctx, token)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			if d.Event.ID != f.event {
				continue
			}
			found++
			if f.subscription == "" || d.Subscription == f.subscription {
				all = append(all, d)
			}
		}
		if token = next; token == "" {
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
func (f *follower) wait(ctx context.Context, pending []*delivery) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
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
	}
	return nil
}

// goesOn prints what has changed of a delivery, and reports whether it is waited for.
func (f *follower) goesOn(d, before *delivery) bool {
	if before == nil || d.State != before.State || d.AttemptCount != before.AttemptCount || d.Reason != before.Reason || !d.NextAttemptTime.Equal(before.NextAttemptTime) {
		fmt.Fprintf(f.out, "%s  %-24s %s\n", f.now().Format(time.TimeOnly), d.Subscription, d.shown())
	}
	switch d.State {
	case "Delivered", "Cancelled":
		return false
	case "Failed":
		f.failed = append(f.failed, d.Subscription)
		return false
	case "Scheduled":
		if d.PlannedTime.After(f.deadline) {
			f.left++
			return false
		}
	}
	return true
}

// shown is a delivery's state in words.
func (d *delivery) shown() string {
	text := d.State
	if d.Reason != "" {
		text += " (" + d.Reason + ")"
	}
	last := attempt{}
	for _, a := range d.Attempts {
		if a.Number > last.Number {
			last = a
		}
	}
	switch {
	case d.State == "Scheduled":
		text += " for " + d.PlannedTime.Format(time.RFC3339)
	case last.Number > 0:
		text += fmt.Sprintf(", attempt %d: %s", last.Number, last.shown())
	}
	if d.State == "Pending" && !d.NextAttemptTime.IsZero() {
		text += "; next attempt at " + d.NextAttemptTime.Format(time.RFC3339)
	}
	return text
}

func (a *attempt) shown() string {
	var parts []string
	if a.Error != "" {
		parts = append(parts, a.Error)
	}
	if a.StatusCode != 0 {
		parts = append(parts, fmt.Sprintf("answer %d", a.StatusCode))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d ms", a.DurationMillis)), ", ")
}
