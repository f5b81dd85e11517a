package quota_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/quota"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func keeper(limits quota.Limits) (*quota.Keeper, *clock) {
	c := &clock{now: time.Unix(1_000_000, 0)}
	return quota.New(func(string) quota.Limits { return limits }, c.Now), c
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	const wait = 10 * time.Second
	for name, test := range map[string]struct {
		limits            quota.Limits
		pending           int64 // deliveries of 100 bytes
		planned           int64
		events            int
		deliveries, bytes int64
		scheduled         int64
		want              *quota.ExceededError // nil: admitted
	}{
		"no limits":                {pending: 1e6, events: 1000, deliveries: 1e6, bytes: 1e9},
		"within all":               {limits: quota.Limits{EventsPerSecond: 10, PendingDeliveries: 100, PendingBytes: 10_000}, pending: 90, events: 10, deliveries: 10, bytes: 1000},
		"too many deliveries":      {limits: quota.Limits{PendingDeliveries: 100}, pending: 95, events: 1, deliveries: 6, want: &quota.ExceededError{Quota: quota.PendingDeliveries, Limit: 100, RetryAfter: wait}},
		"more than there may be":   {limits: quota.Limits{PendingDeliveries: 100}, events: 1, deliveries: 101, want: &quota.ExceededError{Quota: quota.PendingDeliveries, Limit: 100}},
		"too many bytes":           {limits: quota.Limits{PendingBytes: 10_000}, pending: 99, events: 1, deliveries: 1, bytes: 101, want: &quota.ExceededError{Quota: quota.PendingBytes, Limit: 10_000, RetryAfter: wait}},
		"too many planned":         {limits: quota.Limits{ScheduledDeliveries: 100}, planned: 95, events: 1, deliveries: 6, scheduled: 6, want: &quota.ExceededError{Quota: quota.ScheduledDeliveries, Limit: 100, RetryAfter: time.Minute}},
		"more than may be planned": {limits: quota.Limits{ScheduledDeliveries: 100}, events: 1, deliveries: 101, scheduled: 101, want: &quota.ExceededError{Quota: quota.ScheduledDeliveries, Limit: 100}},
		"planned within it":        {limits: quota.Limits{ScheduledDeliveries: 100}, planned: 95, events: 1, deliveries: 5, scheduled: 5},
		"at once, beside planned":  {limits: quota.Limits{ScheduledDeliveries: 100}, planned: 100, events: 1, deliveries: 5},
		"nothing matches":          {limits: quota.Limits{PendingDeliveries: 100}, pending: 100, events: 5},
		"too fast":                 {limits: quota.Limits{EventsPerSecond: 10, Burst: 20}, events: 21, want: &quota.ExceededError{Quota: quota.EventsBurst, Limit: 20}},
		"replays may go beyond it": {limits: quota.Limits{PendingDeliveries: 10}, pending: 50, events: 1, deliveries: 1, want: &quota.ExceededError{Quota: quota.PendingDeliveries, Limit: 10, RetryAfter: wait}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _ := keeper(test.limits)
			k.Add("a", test.pending, 100*test.pending)
			k.AddScheduled("a", test.planned, 0, test.planned)
			err := k.Admit("a", test.events, test.deliveries, test.bytes, test.scheduled)
			if test.want == nil && err == nil {
				return
			}
			if exceeded, ok := errors.AsType[*quota.ExceededError](err); !ok || test.want == nil || *exceeded != *test.want {
				t.Errorf("admit returned %v, want %v", err, test.want)
			}
		})
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	k, c := keeper(quota.Limits{EventsPerSecond: 10})
	admitted := 0
	for range 100 { // 10 s
		for range 5 {
			if k.Admit("a", 1, 0, 0, 0) == nil {
				admitted++
			}
		}
		c.now = c.now.Add(100 * time.Millisecond)
	}
	if admitted < 105 || admitted > 112 {
		t.Errorf("%d events in 10 s, want 10 at once and 10 a second", admitted)
	}
	err := k.Admit("a", 8, 0, 0, 0)
	if exceeded, ok := errors.AsType[*quota.ExceededError](err); !ok || exceeded.RetryAfter <= 0 || exceeded.RetryAfter > time.Second {
		t.Errorf("admit returned %v, want to come again within a second", err)
	}
	if k.Admit("b", 10, 0, 0, 0) != nil {
		t.Error("one tenant's rate holds another back")
	}
}

func TestWhatEndsIsReturned(t *testing.T) {
	t.Parallel()
	k, _ := keeper(quota.Limits{PendingDeliveries: 10})
	if err := k.Admit("a", 1, 10, 100, 0); err != nil {
		t.Fatal(err)
	}
	if k.Admit("a", 1, 1, 1, 0) == nil {
		t.Error("admitted beyond the quota")
	}
	k.Add("a", -1, -10)
	if err := k.Admit("a", 1, 1, 1, 0); err != nil {
		t.Errorf("not admitted after one ended: %v", err)
	}
	if got := k.Largest(3); len(got) != 1 || got[0] != (quota.Usage{Tenant: "a", Deliveries: 10, Bytes: 91}) {
		t.Errorf("the largest are %v", got)
	}
	if k.Refused(quota.PendingDeliveries) != 1 {
		t.Errorf("%d refusals, want 1", k.Refused(quota.PendingDeliveries))
	}
}

// TestManyTenantsAreForgotten: names that publish once do not stay.
func TestManyTenantsAreForgotten(t *testing.T) {
	t.Parallel()
	k, c := keeper(quota.Limits{EventsPerSecond: 10})
	for i := range 20_000 {
		if err := k.Admit(fmt.Sprint(i), 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(time.Millisecond)
	}
	if n := k.Known(); n > 5000 {
		t.Errorf("%d tenants are known", n)
	}
}

// TestRebase: a count replaces what was known, and loses nothing that changes meanwhile.
func TestRebase(t *testing.T) {
	t.Parallel()
	k, _ := keeper(quota.Limits{})
	k.Add("gone", 5, 50)
	k.AddScheduled("a", 1, 10, 1)
	err := k.Rebase(func(add func(string, int64, int64, int64)) error {
		add("a", 100, 1000, 7)
		k.AddScheduled("a", 3, 30, 2)
		k.Add("b", 2, 20)
		k.Add("a", -1, -10)
		add("a", 1, 1, 7)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(k.Largest(5))
	if want := "[{a 103 1021 16} {b 2 20 0}]"; got != want {
		t.Errorf("pending are %s, want %s", got, want)
	}
	if k.Rebase(func(func(string, int64, int64, int64)) error { return errors.New("no") }) == nil || fmt.Sprint(k.Largest(5)) != got {
		t.Error("a count that failed changed what is known")
	}
}

// TestFullest: of each quota of what is pending, it is the tenant that uses most of it, whatever others have.
func TestFullest(t *testing.T) {
	t.Parallel()
	limits := map[string]quota.Limits{
		"a": {PendingDeliveries: 100, PendingBytes: 1000},
		"b": {PendingDeliveries: 10},
		"c": {},
	}
	k := quota.New(func(tenant string) quota.Limits { return limits[tenant] }, time.Now)
	k.AddScheduled("a", 50, 250, 50)
	k.Add("b", 8, 9_000)
	k.Add("c", 1_000_000, 1)
	want := map[string]float64{quota.PendingDeliveries: 0.8, quota.PendingBytes: 0.25, quota.ScheduledDeliveries: 0}
	if got := k.Fullest(); !maps.Equal(got, want) {
		t.Errorf("fullest is %v, want %v", got, want)
	}
}
