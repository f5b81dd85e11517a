package subscription

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestServiceOf: what a dispatcher does holds for the hold-off before its subscriptions follow, both ways.
func TestServiceOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status   metav1.ConditionStatus
		reason   string
		ago      time.Duration
		want     service
		wantWait time.Duration
	}{
		"says nothing":             {"", "", 0, serving, 0},
		"not known":                {metav1.ConditionUnknown, v1alpha1.ReasonPending, time.Hour, serving, 0},
		"blinks":                   {metav1.ConditionFalse, v1alpha1.ReasonNoPodReady, 10 * time.Second, unsettled, HoldOff - 10*time.Second},
		"is down":                  {metav1.ConditionFalse, v1alpha1.ReasonNoPodReady, HoldOff, down, 0},
		"is back":                  {metav1.ConditionTrue, v1alpha1.ReasonAvailable, 10 * time.Second, unsettled, HoldOff - 10*time.Second},
		"is up":                    {metav1.ConditionTrue, v1alpha1.ReasonAvailable, HoldOff, serving, 0},
		"suspended":                {metav1.ConditionFalse, v1alpha1.ReasonSuspended, 0, stopped, 0},
		"of a clock that is ahead": {metav1.ConditionFalse, v1alpha1.ReasonNoPodReady, -time.Hour, unsettled, HoldOff},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &v1alpha1.WebhookDispatcher{}
			if test.status != "" {
				d.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAvailable, Status: test.status, Reason: test.reason, LastTransitionTime: metav1.NewTime(now.Add(-test.ago))}}
			}
			if got, wait := serviceOf(d, now); got != test.want || wait != test.wantWait {
				t.Errorf("got %d for %v, want %d for %v", got, wait, test.want, test.wantWait)
			}
		})
	}
}

// TestMarksAreFairAndPaced: a namespace with thousands of subscriptions does not keep the others waiting, and nothing is
// asked for twice.
func TestMarksAreFairAndPaced(t *testing.T) {
	t.Parallel()
	var subs []v1alpha1.WebhookSubscription
	add := func(namespace string, n int) {
		for i := range n {
			subs = append(subs, v1alpha1.WebhookSubscription{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint(i), Generation: generation},
				Status: v1alpha1.WebhookSubscriptionStatus{
					ObservedGeneration: generation,
					Conditions: []metav1.Condition{
						set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, generation),
						set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, generation),
						set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation),
					},
				},
			})
		}
	}
	add("large", 1000)
	add("small", 3)
	if next := nextMarks(subs, serving, 10); len(next) != 0 {
		t.Errorf("%v are marked although all is well", next)
	}
	next := nextMarks(subs, down, 10)
	small := 0
	for _, key := range next {
		if key.Namespace == "small" {
			small++
		}
	}
	if len(next) != 10 || small != 3 {
		t.Errorf("%d of 10, of these %d of the small namespace, want 3", len(next), small)
	}
	for i := range subs {
		subs[i].Status.Conditions[1].Reason = v1alpha1.ReasonDispatcherUnavailable
		subs[i].Status.Conditions[1].Status = metav1.ConditionFalse
	}
	if next := nextMarks(subs, down, 10); len(next) != 0 {
		t.Errorf("%v are marked again", next)
	}
	if next := nextMarks(subs, unsettled, 10); len(next) != 0 {
		t.Errorf("%v change within the hold-off", next)
	}
	if next := nextMarks(subs, serving, 2000); len(next) != len(subs) {
		t.Errorf("%d of %d say so again", len(next), len(subs))
	}
}

// TestDiffers: what a subscription says of its dispatcher is looked at again when the dispatcher is something else.
func TestDiffers(t *testing.T) {
	t.Parallel()
	of := func(ready, programmed metav1.Condition) *v1alpha1.WebhookSubscription {
		return &v1alpha1.WebhookSubscription{
			ObjectMeta: metav1.ObjectMeta{Generation: generation},
			Status: v1alpha1.WebhookSubscriptionStatus{ObservedGeneration: generation, Conditions: []metav1.Condition{
				set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, generation), ready, programmed,
			}},
		}
	}
	both := func(status metav1.ConditionStatus, reason string) *v1alpha1.WebhookSubscription {
		return of(set(v1alpha1.ConditionReady, status, reason, generation), set(v1alpha1.ConditionProgrammed, status, reason, generation))
	}
	fine := of(set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, generation), set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation))
	gone := of(set(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonGone, generation), set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation))
	pending := both(metav1.ConditionUnknown, v1alpha1.ReasonPending)
	unavailable := both(metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable)
	suspended := both(metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended)
	for name, test := range map[string]struct {
		sub  *v1alpha1.WebhookSubscription
		does service
		want bool
	}{
		"fine, down":             {fine, down, true},
		"gone, down":             {gone, down, true},
		"pending, down":          {pending, down, false}, // it claims nothing
		"unavailable, down":      {unavailable, down, false},
		"suspended, down":        {suspended, down, true},
		"fine, stopped":          {fine, stopped, true},
		"pending, stopped":       {pending, stopped, true},
		"suspended, stopped":     {suspended, stopped, false},
		"fine, serving":          {fine, serving, false},
		"unavailable, serving":   {unavailable, serving, true},
		"suspended, serving":     {suspended, serving, true},
		"unavailable, unsettled": {unavailable, unsettled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := differs(test.sub, test.does); got != test.want {
				t.Errorf("differs: %t, want %t", got, test.want)
			}
		})
	}
}
