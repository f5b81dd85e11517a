package quota_test

import (
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/quota"
)

// TestFull: a tenant with as much pending as it may have has no room; without a quota it always has.
func TestFull(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limits            quota.Limits
		deliveries, bytes int64
		want              bool
	}{
		"no quota":            {quota.Limits{}, 1e9, 1e9, false},
		"room for one":        {quota.Limits{PendingDeliveries: 10}, 9, 1e9, false},
		"as many as it may":   {quota.Limits{PendingDeliveries: 10}, 10, 1, true},
		"as large as it may":  {quota.Limits{PendingBytes: 10}, 1, 10, true},
		"of another quota":    {quota.Limits{ScheduledDeliveries: 1}, 10, 10, false},
		"a tenant of nothing": {quota.Limits{PendingDeliveries: 10}, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _ := keeper(test.limits)
			k.Add("clinic-a", test.deliveries, test.bytes)
			if got := k.Full("clinic-a"); got != test.want {
				t.Errorf("full: %v, want %v", got, test.want)
			}
			if k.Full("clinic-b") {
				t.Error("another tenant is full")
			}
		})
	}
}
