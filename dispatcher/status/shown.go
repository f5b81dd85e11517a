package status

import (
	"crypto/sha256"
	"encoding/json"
	"math"
	"time"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// shown is what the API server shows of a subscription: the conditions, what else is compared apart, and of the rest a
// digest. There is one for every subscription.
type shown struct {
	conditions []metav1.Condition
	rest       [16]byte
	programmed int64     // generation
	nothing    bool      // nobody has written anything
	plain      bool      // it says no more than that nothing was attempted, and that nothing failed
	pending    int64     // deliveries; -1 if that is not shown
	total      int64     // of deliveries that the counts account for
	next       time.Time // each write for deliveries moves it by writePause
}

// shownOf returns what a status looks like that this package wrote, or read.
func shownOf(status v1alpha1.WebhookSubscriptionStatus) shown {
	s := shown{
		conditions: status.Conditions, programmed: status.ProgrammedGeneration, pending: -1,
		nothing: len(status.Conditions) == 0 && status.Deliveries == nil && len(status.Retrying) == 0,
		plain:   isPlain(status),
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		c.Type, c.Reason, c.Message = unique.Make(c.Type).Value(), unique.Make(c.Reason).Value(), unique.Make(c.Message).Value()
		c.Status = metav1.ConditionStatus(unique.Make(string(c.Status)).Value())
	}
	if d := status.Deliveries; d != nil {
		if d.Pending != nil {
			s.pending = *d.Pending
		}
		for _, n := range []*int64{d.Delivered, d.Retrying, d.Failed} {
			if n != nil {
				s.total += *n
			}
		}
	}
	status.Conditions, status.ProgrammedGeneration = nil, 0
	text, err := json.Marshal(status)
	if err != nil {
		return s // plain data always has a text; if not, it is written again
	}
	sum := sha256.Sum256(text)
	copy(s.rest[:], sum[:])
	return s
}

// isPlain reports whether a status holds nothing that its readers would not assume without it.
func isPlain(status v1alpha1.WebhookSubscriptionStatus) bool {
	for i := range status.Conditions {
		if !isAssumed(&status.Conditions[i]) {
			return false
		}
	}
	d := status.Deliveries
	if d == nil {
		return len(status.Retrying) == 0
	}
	for _, n := range []*int64{d.Pending, d.Scheduled, d.Delivered, d.Retrying, d.Failed} {
		if n != nil && *n != 0 {
			return false
		}
	}
	return d.OldestPendingTime == nil && d.NextScheduledTime == nil && d.LastDeliveredTime == nil && d.LastFailure == nil
}

// isAssumed reports whether a condition says the same as its absence.
func isAssumed(c *metav1.Condition) bool {
	return c.Reason == v1alpha1.ReasonNoAttempts || c.Reason == v1alpha1.ReasonEvaluated
}

// same reports whether two statuses are equal, transition times included.
func (s shown) same(other shown) bool {
	if s.programmed != other.programmed || s.rest != other.rest || len(s.conditions) != len(other.conditions) {
		return false
	}
	for i := range s.conditions {
		a, b := s.conditions[i], other.conditions[i]
		if !a.LastTransitionTime.Equal(&b.LastTransitionTime) {
			return false
		}
		a.LastTransitionTime = b.LastTransitionTime
		if a != b {
			return false
		}
	}
	return true
}

// wait is how long the next write for deliveries has to wait.
func (s shown) wait(now time.Time) time.Duration {
	if !s.next.After(now) { // as of one that was never written
		return 0
	}
	return max(0, s.next.Sub(now)-(writesAtOnce-1)*writePause)
}

// rested reports whether there was no such write for so long that as many in a row may follow as ever.
func (s shown) rested(now time.Time) bool { return !s.next.After(now) }

// count notes such a write.
func (s *shown) count(now time.Time) {
	if s.next.Before(now) {
		s.next = now
	}
	s.next = s.next.Add(writePause)
}

// wrongHealth is the lie of a status whose conditions do not hold: worse than that of any count.
var wrongHealth = math.Inf(1)

// lie is how wrong the counts are, compared to what they say.
func (s shown) lie(counts delivery.Counts) float64 {
	return math.Abs(float64(counts.Delivered+counts.Retrying+counts.Failed-s.total)) / float64(1+s.total)
}
