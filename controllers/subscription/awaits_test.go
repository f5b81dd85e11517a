package subscription

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// seen is a subscription of a generation, and the one that the dispatcher works by; 0 for none.
type seen struct {
	name                   string
	generation, programmed int64
	unwritten              bool // no index names it
}

func waitingFor(name string, generation, programmed int64) seen {
	return seen{name, generation, programmed, false}
}

func (s seen) put(a *awaits, v verdict, now time.Time) time.Duration {
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: "clinic", Name: s.name, UID: types.UID(s.name), Generation: s.generation}}
	return a.put(sub, v, s.programmed != s.generation, !s.unwritten, now)
}

// TestAwaits: a status is written once its dispatcher has said what it does, or takes longer than it should.
func TestAwaits(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)
	ok, refused := verdict{}, verdict{rejection: &routing.Rejection{}}
	type step struct {
		after time.Duration
		sub   seen
		v     verdict
		want  time.Duration
	}
	tests := map[string][]step{
		"new":                  {{0, waitingFor("a", 1, 0), ok, programmedWithin}, {time.Second, waitingFor("a", 1, 1), ok, 0}},
		"changed":              {{0, waitingFor("a", 2, 1), ok, programmedWithin}, {time.Second, waitingFor("a", 2, 2), ok, 0}},
		"mended":               {{0, waitingFor("a", 1, 0), ok, programmedWithin}},
		"refused":              {{0, waitingFor("a", 1, 0), refused, 0}},
		"nothing new":          {{0, waitingFor("a", 1, 1), ok, 0}},
		"no dispatcher":        {{0, waitingFor("a", 1, 0), ok, programmedWithin}, {programmedWithin, waitingFor("a", 1, 0), ok, 0}},
		"looked at in between": {{0, waitingFor("a", 1, 0), ok, programmedWithin}, {time.Second, waitingFor("a", 1, 0), ok, programmedWithin - time.Second}},
		"changed again":        {{0, waitingFor("a", 1, 0), ok, programmedWithin}, {programmedWithin, waitingFor("a", 2, 0), ok, programmedWithin}},
		"a dispatcher that is busy": {
			{0, waitingFor("a", 1, 0), ok, programmedWithin},
			{0, waitingFor("b", 1, 0), ok, programmedWithin},
			{9 * time.Second, waitingFor("b", 1, 1), ok, 0},
			{programmedWithin, waitingFor("a", 1, 0), ok, programmedBusy},
			{programmedWithin + programmedBusy, waitingFor("a", 1, 0), ok, 0}, // it has stopped since
		},
		"a table that is not written yet": {
			{0, seen{"a", 1, 0, true}, ok, programmedWithin},
			{programmedWithin, seen{"a", 1, 0, true}, ok, programmedWithin},
			{2 * programmedWithin, waitingFor("a", 1, 0), ok, programmedWithin}, // the dispatcher has its time from now on
			{2*programmedWithin + time.Second, waitingFor("a", 1, 1), ok, 0},
		},
		"a table that cannot be written": {
			{0, seen{"a", 1, 0, true}, ok, programmedWithin},
			{programmedAtLast, seen{"a", 1, 0, true}, ok, 0},
		},
		"one that never comes to it": {
			{0, waitingFor("a", 1, 0), ok, programmedWithin},
			{0, waitingFor("b", 1, 0), ok, programmedWithin},
			{programmedAtLast, waitingFor("b", 1, 1), ok, 0},
			{programmedAtLast, waitingFor("a", 1, 0), ok, 0},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var a awaits
			for i, s := range steps {
				if got := s.sub.put(&a, s.v, start.Add(s.after)); got != s.want {
					t.Errorf("step %d: wait %v, want %v", i, got, s.want)
				}
			}
		})
	}
}
