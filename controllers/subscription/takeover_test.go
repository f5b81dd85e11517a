package subscription

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestAwaited: the manager concludes from one report of a dispatcher, from its own table and from what it said before whether a
// subscription is programmed; and of pods of an earlier version, from what they say at each subscription.
func TestAwaited(t *testing.T) {
	t.Parallel()
	condition := func(status metav1.ConditionStatus, reason string, generation int64) *metav1.Condition {
		c := set(v1alpha1.ConditionProgrammed, status, reason, generation)
		return &c
	}
	programmed := condition(metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation)
	unavailable := condition(metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable, generation)
	suspended := condition(metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended, generation)
	waiting := condition(metav1.ConditionFalse, v1alpha1.ReasonWaiting, generation)
	pending := condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, generation)
	earlier := condition(metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation-1)
	noted, inherited, taken := routes.Takeover{Awaited: true}, routes.Takeover{Awaited: true, Inherited: true}, routes.Takeover{}
	const none, reports = 0, 7

	for name, test := range map[string]struct {
		revision   int64 // that the dispatcher reports
		takeover   routes.Takeover
		rejected   bool
		programmed int64 // generation, as pods of an earlier version say
		said       *metav1.Condition
		want       bool
	}{
		"new":                                {reports, noted, false, 0, nil, true},
		"taken over":                         {reports, taken, false, 0, nil, false},
		"taken over, said before":            {reports, taken, false, 0, programmed, false},
		"changed":                            {reports, noted, false, 0, earlier, true},
		"not accepted any more":              {reports, noted, true, 0, programmed, true},
		"not accepted, and held":             {reports, taken, true, 0, programmed, false},
		"never accepted":                     {reports, taken, true, 0, nil, false},
		"accepted again":                     {reports, noted, false, 0, waiting, true},
		"accepted again before it was said":  {reports, noted, false, 0, programmed, true},
		"what an earlier version left":       {reports, noted, false, generation, nil, true},
		"inherited, programmed":              {reports, inherited, false, 0, programmed, false},
		"inherited, unavailable":             {reports, inherited, false, 0, unavailable, false},
		"inherited, suspended":               {reports, inherited, false, 0, suspended, true},
		"inherited, pending":                 {reports, inherited, false, 0, pending, true},
		"inherited, of an earlier spec":      {reports, inherited, false, 0, earlier, true},
		"inherited, nothing said":            {reports, inherited, false, 0, nil, true},
		"inherited, held":                    {reports, inherited, true, 0, waiting, false},
		"inherited, not accepted any more":   {reports, inherited, true, 0, programmed, true},
		"nobody reports: new":                {none, noted, false, 0, nil, true},
		"earlier version: taken over":        {none, noted, false, generation, nil, false},
		"earlier version: changed":           {none, noted, false, generation - 1, earlier, true},
		"earlier version: changed again":     {none, inherited, false, generation - 1, earlier, true},
		"earlier version: not accepted":      {none, noted, true, generation, programmed, true},
		"earlier version: held":              {none, noted, true, 0, waiting, false},
		"earlier version came back":          {none, taken, false, 0, programmed, false},
		"earlier version came back, changed": {none, noted, false, 0, earlier, true},
		"earlier version, manager restarted": {none, inherited, false, generation, programmed, false},
		"earlier version, of this manager":   {none, inherited, false, 0, programmed, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
			sub.Status.ProgrammedGeneration = test.programmed
			if test.said != nil {
				sub.Status.Conditions = []metav1.Condition{*test.said}
			}
			v := verdict{}
			if test.rejected {
				v.rejection = &routing.Rejection{Reason: v1alpha1.ReasonSecretNotFound}
			}
			d := &v1alpha1.WebhookDispatcher{Status: v1alpha1.WebhookDispatcherStatus{ProgrammedRevision: test.revision}}
			if got := awaited(sub, v, d, test.takeover); got != test.want {
				t.Errorf("awaited: %t, want %t", got, test.want)
			}
			if awaited(sub, v, nil, test.takeover) {
				t.Error("nobody is there to be awaited")
			}
		})
	}
}
