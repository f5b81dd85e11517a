package virtual

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/test/kit/fakes"
)

const (
	created = "appointment.created"
	updated = "appointment.updated"
	deleted = "appointment.deleted"
	phone   = "+15550100001"
)

// appointment is the data of an event of one of an hour, at a local time.
func (c *clinic) appointment(id, status, start string) map[string]any {
	at := local(c, start)
	return map[string]any{
		"id": id, "status": status, "patientPhone": phone, "start": at.Format(time.RFC3339), "end": at.Add(time.Hour).Format(time.RFC3339),
	}
}

// messages are the texts that Twilio took, each after the local time at which it came, in order.
func (c *clinic) messages() []string {
	c.Helper()
	var all []string
	for _, r := range c.Twilio.All() {
		form, err := url.ParseQuery(r.Body)
		if err != nil {
			c.Fatal(err)
		}
		what, _, _ := strings.Cut(form.Get("Body"), " ")
		all = append(all, shown(c, r.At)+" "+map[string]string{"Your": "confirmation", "Reminder:": "reminder", "Thank": "follow-up"}[what])
	}
	slices.Sort(all)
	return all
}

// step is something that happens at a local time: an event, or a kill.
type step struct {
	at    string
	kind  string // "" for nothing
	data  func(c *clinic) map[string]any
	kills bool
}

func appointment(at, kind, status, start string) step {
	return step{at: at, kind: kind, data: func(c *clinic) map[string]any { return c.appointment("appt_1", status, start) }}
}

func kill(at string) step { return step{at: at, kills: true} }

// live lets the steps happen, each at its time, and the time pass until the end.
func (c *clinic) live(p place, steps []step, end string) {
	c.Helper()
	p.begin(c)
	for _, s := range steps {
		c.until(s.at)
		if s.kills {
			p.kill(c)
			c.settle()
			continue
		}
		c.event(s.kind, s.data(c))
	}
	c.until(end)
}

// expect compares what a provider took with what was wanted, and checks that nothing is left.
func (c *clinic) expect(got []string, want ...string) {
	c.Helper()
	if !slices.Equal(got, want) {
		c.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	for _, state := range []string{"Pending", "Failed"} {
		if left := c.list("", state); len(left) > 0 {
			c.Errorf("%s: %+v", state, left)
		}
	}
}

// TestSMS is the life of an appointment: confirmed at once but not at night, reminded of a day before within the hours
// for that, asked about two hours after; moved, cancelled, missed. In each life a dispatcher dies while something is
// planned.
func TestSMS(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		begin string
		steps []step
		end   string
		want  []string
	}{
		"kept": {
			begin: "2026-01-12 10:00", end: "2026-01-20 00:00",
			steps: []step{appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"), kill("2026-01-13 00:00"), kill("2026-01-16 00:00")},
			want:  []string{"2026-01-12 10:00 confirmation", "2026-01-15 14:00 reminder", "2026-01-16 17:00 follow-up"},
		},
		"confirmed in the morning, reminded in the evening, asked the next morning": {
			begin: "2026-01-12 23:30", end: "2026-01-20 00:00",
			steps: []step{appointment("2026-01-12 23:30", created, "booked", "2026-01-16 20:30"), kill("2026-01-13 01:00")},
			want:  []string{"2026-01-13 08:00 confirmation", "2026-01-15 20:00 reminder", "2026-01-17 09:00 follow-up"},
		},
		"reminded the evening before the day before": {
			begin: "2026-01-12 10:00", end: "2026-01-20 00:00",
			steps: []step{appointment("2026-01-12 10:00", created, "booked", "2026-01-16 08:00"), kill("2026-01-13 00:00")},
			want:  []string{"2026-01-12 10:00 confirmation", "2026-01-14 20:00 reminder", "2026-01-16 11:00 follow-up"},
		},
		"booked less than a day before": {
			begin: "2026-01-12 10:00", end: "2026-01-20 00:00",
			steps: []step{appointment("2026-01-12 10:00", created, "booked", "2026-01-13 09:30"), kill("2026-01-12 12:00")},
			want:  []string{"2026-01-12 10:00 confirmation", "2026-01-13 12:30 follow-up"},
		},
		"moved to a later day": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"), kill("2026-01-12 11:00"),
				appointment("2026-01-14 09:00", updated, "booked", "2026-01-19 11:00"), kill("2026-01-14 10:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation", "2026-01-18 11:00 reminder", "2026-01-19 14:00 follow-up"},
		},
		"moved to an earlier day": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-19 14:00"), kill("2026-01-12 11:00"),
				appointment("2026-01-13 09:00", updated, "booked", "2026-01-15 11:00"), kill("2026-01-13 10:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation", "2026-01-14 11:00 reminder", "2026-01-15 14:00 follow-up"},
		},
		"moved so near that no reminder is due": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-19 14:00"), kill("2026-01-12 11:00"),
				appointment("2026-01-13 09:00", updated, "booked", "2026-01-13 15:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation", "2026-01-13 18:00 follow-up"},
		},
		"cancelled": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"), kill("2026-01-13 00:00"),
				appointment("2026-01-14 09:00", updated, "cancelled", "2026-01-16 14:00"), kill("2026-01-14 10:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation"},
		},
		"deleted": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"),
				appointment("2026-01-14 09:00", deleted, "booked", "2026-01-16 14:00"), kill("2026-01-14 10:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation"},
		},
		"booked at night and cancelled the same night": {
			begin: "2026-01-12 23:30", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 23:30", created, "booked", "2026-01-16 14:00"), kill("2026-01-12 23:45"),
				appointment("2026-01-13 00:30", updated, "cancelled", "2026-01-16 14:00"), kill("2026-01-13 01:00"),
			},
		},
		"cancelled, and booked again": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"),
				appointment("2026-01-13 09:00", updated, "cancelled", "2026-01-16 14:00"), kill("2026-01-13 10:00"),
				appointment("2026-01-13 11:00", updated, "booked", "2026-01-17 14:00"), kill("2026-01-13 12:00"),
			},
			want: []string{"2026-01-12 10:00 confirmation", "2026-01-16 14:00 reminder", "2026-01-17 17:00 follow-up"},
		},
		"missed": {
			begin: "2026-01-12 10:00", end: "2026-01-25 00:00",
			steps: []step{
				appointment("2026-01-12 10:00", created, "booked", "2026-01-16 14:00"),
				appointment("2026-01-16 14:20", updated, "noshow", "2026-01-16 14:00"), kill("2026-01-16 14:30"),
			},
			want: []string{"2026-01-12 10:00 confirmation", "2026-01-15 14:00 reminder"},
		},
		"across the change to summer time": { // 2026-03-08 has 23 hours: 24 hours before 10:00 are 09:00
			begin: "2026-03-02 10:00", end: "2026-03-20 00:00",
			steps: []step{appointment("2026-03-02 10:00", created, "booked", "2026-03-08 10:00"), kill("2026-03-03 00:00")},
			want:  []string{"2026-03-02 10:00 confirmation", "2026-03-07 09:00 reminder", "2026-03-08 13:00 follow-up"},
		},
		"before the window, because the night is short": { // 24 hours before 09:30 are 08:30: it goes the evening before
			begin: "2026-03-02 10:00", end: "2026-03-20 00:00",
			steps: []step{appointment("2026-03-02 10:00", created, "booked", "2026-03-08 09:30"), kill("2026-03-03 00:00")},
			want:  []string{"2026-03-02 10:00 confirmation", "2026-03-06 20:00 reminder", "2026-03-08 12:30 follow-up"},
		},
		"booked in the hour that comes twice": { // 2026-11-01 has 25 hours: 24 hours before 10:00 are 11:00
			begin: "2026-11-01 00:59", end: "2026-11-20 00:00",
			steps: []step{appointment("2026-11-01 00:59", created, "booked", "2026-11-02 08:30"), kill("2026-11-01 04:00")},
			want:  []string{"2026-11-01 08:00 confirmation", "2026-11-02 11:30 follow-up"},
		},
		"across the change to winter time": {
			begin: "2026-10-26 10:00", end: "2026-11-20 00:00",
			steps: []step{appointment("2026-10-26 10:00", created, "booked", "2026-11-01 10:00"), kill("2026-10-28 00:00"), kill("2026-10-31 12:00")},
			want:  []string{"2026-10-26 10:00 confirmation", "2026-10-31 11:00 reminder", "2026-11-01 13:00 follow-up"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, func(t *testing.T, p place) {
				c := newClinic(t, tc.begin, "sms")
				c.live(p, tc.steps, tc.end)
				c.expect(c.messages(), tc.want...)
			})
		})
	}
}

// emails are the subjects of what Postmark took, each after the local time at which it came and before its recipient.
func (c *clinic) emails() []string {
	c.Helper()
	var all []string
	for _, r := range c.Postmark.All() {
		fields := fakes.Object(r)
		all = append(all, fmt.Sprint(shown(c, r.At), " ", fields["Subject"], " ", fields["To"]))
	}
	slices.Sort(all)
	return all
}

// TestOnboarding: the reminder goes 48 hours after, within office hours, and is dropped by that patient's answers: not by
// the empty form that the automation itself makes, and not by another patient's.
func TestOnboarding(t *testing.T) {
	t.Parallel()
	patient := func(at, kind, id string) step {
		return step{at: at, kind: kind, data: func(*clinic) map[string]any {
			return map[string]any{"id": id, "firstName": "Ada", "email": id + "@example.com"}
		}}
	}
	intake := func(at, patient string, responses ...any) step {
		return step{at: at, kind: "intake.created", data: func(*clinic) map[string]any {
			return map[string]any{"id": "in_" + patient, "patientId": patient, "responses": append([]any{}, responses...)}
		}}
	}
	for name, tc := range map[string]struct {
		steps []step
		want  []string
	}{
		"no answer": {
			steps: []step{patient("2026-01-12 10:00", "patient.created", "pt_1"), intake("2026-01-12 10:01", "pt_1"), intake("2026-01-13 10:00", "pt_2", "a"), kill("2026-01-13 12:00")},
			want:  []string{"2026-01-12 10:00 Welcome to our practice pt_1@example.com", "2026-01-14 10:00 Your intake form pt_1@example.com"},
		},
		"an answer": {
			steps: []step{
				patient("2026-01-12 10:00", "patient.created", "pt_1"), intake("2026-01-12 10:01", "pt_1"), kill("2026-01-13 12:00"),
				intake("2026-01-14 09:59", "pt_1", "a"), kill("2026-01-14 09:59"),
			},
			want: []string{"2026-01-12 10:00 Welcome to our practice pt_1@example.com"},
		},
		"an answer that comes late": {
			steps: []step{patient("2026-01-12 10:00", "patient.created", "pt_1"), intake("2026-01-14 10:01", "pt_1", "a")},
			want:  []string{"2026-01-12 10:00 Welcome to our practice pt_1@example.com", "2026-01-14 10:00 Your intake form pt_1@example.com"},
		},
		"at night": {
			steps: []step{patient("2026-01-12 22:00", "patient.created", "pt_1"), kill("2026-01-14 23:00")},
			want:  []string{"2026-01-12 22:00 Welcome to our practice pt_1@example.com", "2026-01-15 09:00 Your intake form pt_1@example.com"},
		},
		"deleted": {
			steps: []step{patient("2026-01-12 10:00", "patient.created", "pt_1"), patient("2026-01-13 10:00", "patient.deleted", "pt_1"), kill("2026-01-13 12:00")},
			want:  []string{"2026-01-12 10:00 Welcome to our practice pt_1@example.com"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, func(t *testing.T, p place) {
				c := newClinic(t, "2026-01-12 10:00", "onboarding")
				c.live(p, tc.steps, "2026-01-20 00:00")
				c.expect(c.emails(), tc.want...)
				if got := c.Clinik.Intakes(); got != 1 {
					t.Errorf("%d intake forms, want 1", got)
				}
			})
		})
	}
}

// TestOutage: a provider that is down for a day gets the follow-up when it is back, and no reminder of a visit that has begun.
func TestOutage(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, p place) {
		c := newClinic(t, "2026-01-12 10:00", "sms")
		p.begin(c)
		c.event(created, c.appointment("appt_1", "booked", "2026-01-16 14:00"))
		c.until("2026-01-14 10:00")
		c.Twilio.Break(503)
		c.until("2026-01-16 17:30")
		p.kill(c)
		c.Twilio.Break(0)
		c.until("2026-01-18 00:00")
		got := c.list("sms-reminder", "Cancelled")
		if len(got) != 1 || got[0].Reason != "Recheck" {
			t.Errorf("the reminder: %+v, want Cancelled for Recheck", got)
		}
		if got := c.list("sms-follow-up", "Delivered"); len(got) != 1 || got[0].AttemptCount < 2 {
			t.Errorf("the follow-up: %+v, want Delivered at a later attempt", got)
		}
	})
}
