package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// TestOutcomesAreRecordedTogether: an outcome waits for others only while there may be some.
func TestOutcomesAreRecordedTogether(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		others      time.Duration // which they take to answer; none if 0
		wantAtOnce  int           // outcomes recorded without any time passing
		wantRecords int           // calls, once all is recorded
	}{
		"alone":              {wantAtOnce: 1, wantRecords: 1},
		"others come soon":   {others: recordLinger / 2, wantRecords: 1},
		"others take longer": {others: recordLinger * 2, wantRecords: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				subs := []event.SubscriptionKey{to.add("a", ok)}
				if test.others > 0 {
					subs = append(subs, to.add("b", slow(test.others)), to.add("c", slow(test.others)))
				}
				e, stop := start(t, s, to, Options{})
				defer stop()
				synctest.Wait()
				e.Accept(s.append("1", subs...))
				synctest.Wait()
				if got := s.total(delivery.Delivered); got != test.wantAtOnce {
					t.Errorf("%d outcomes were recorded at once, want %d", got, test.wantAtOnce)
				}
				advance(time.Second)
				if got := s.total(delivery.Delivered); got != len(subs) || s.records != test.wantRecords {
					t.Errorf("%d outcomes were recorded in %d calls, want %d in %d", got, s.records, len(subs), test.wantRecords)
				}
			})
		})
	}
}
