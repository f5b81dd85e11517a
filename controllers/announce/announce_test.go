package announce

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func conditions(texts ...string) (all []metav1.Condition) {
	for _, text := range texts { // such as Ready=False/Gone
		kind, rest, _ := strings.Cut(text, "=")
		status, reason, _ := strings.Cut(rest, "/")
		all = append(all, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: "what to do"})
	}
	return all
}

func TestEventsOfSubscriptions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after []metav1.Condition
		want          []string
	}{
		"nothing yet":         {nil, conditions("Accepted=True/Accepted", "EndpointHealthy=Unknown/NoAttempts"), nil},
		"no change":           {conditions("Accepted=False/InvalidURL"), conditions("Accepted=False/InvalidURL"), nil},
		"not accepted":        {nil, conditions("Accepted=False/SecretNotFound"), []string{"Warning NotAccepted"}},
		"for another reason":  {conditions("Accepted=False/SecretNotFound"), conditions("Accepted=False/SecretKeyMissing"), []string{"Warning NotAccepted"}},
		"accepted":            {conditions("Accepted=False/SecretNotFound"), conditions("Accepted=True/Accepted"), []string{"Normal Accepted"}},
		"one failed":          {conditions("EndpointHealthy=True/Delivering"), conditions("EndpointHealthy=False/LastAttemptFailed"), nil},
		"failing":             {conditions("EndpointHealthy=False/LastAttemptFailed"), conditions("EndpointHealthy=False/CircuitOpen"), []string{"Warning EndpointFailing"}},
		"recovered":           {conditions("EndpointHealthy=False/CircuitOpen"), conditions("EndpointHealthy=True/Delivering"), []string{"Normal EndpointRecovered"}},
		"one failed, repeats": {conditions("EndpointHealthy=False/LastAttemptFailed"), conditions("EndpointHealthy=True/Delivering"), nil},
		"gone":                {conditions("EndpointHealthy=True/Delivering"), conditions("EndpointHealthy=False/Gone"), []string{"Warning EndpointGone"}},
		"back":                {conditions("EndpointHealthy=False/Gone"), conditions("EndpointHealthy=True/Delivering"), []string{"Normal EndpointRecovered"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := &v1alpha1.WebhookSubscription{}, &v1alpha1.WebhookSubscription{}
			before.Status.Conditions, after.Status.Conditions = test.before, test.after
			if got := texts(OfSubscription(before, after)); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func texts(found []Event) (all []string) {
	for _, e := range found {
		all = append(all, e.Type+" "+e.Reason)
	}
	return all
}

func TestEventsOfDispatchers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after []metav1.Condition
		versions      [2]string
		want          []string
	}{
		"first":             {nil, conditions("Accepted=True/Accepted", "Available=Unknown/Pending"), [2]string{"", "v1"}, nil},
		"store not ready":   {conditions("StoreReady=True/StoreReady", "Available=True/Available"), conditions("StoreReady=False/StoreFull", "Available=False/StoreFull", "Stalled=True/StoreFull"), [2]string{}, []string{"Warning StoreNotReady", "Warning Unavailable"}},
		"store ready again": {conditions("StoreReady=False/StoreFull", "Available=False/StoreFull"), conditions("StoreReady=True/StoreReady", "Available=True/Available"), [2]string{}, []string{"Normal StoreReady", "Normal Available"}},
		"pods died":         {conditions("Available=True/Available"), conditions("Available=False/NoPodReady"), [2]string{}, []string{"Warning Unavailable"}},
		"stalled":           {nil, conditions("Stalled=True/NotReady"), [2]string{}, []string{"Warning Stalled"}},
		"ignored":           {conditions("Accepted=True/Accepted"), conditions("Accepted=True/StoreImmutable"), [2]string{}, []string{"Warning SpecIgnored"}},
		"upgraded":          {nil, nil, [2]string{"v1", "v2"}, []string{"Normal VersionChanged"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := &v1alpha1.WebhookDispatcher{}, &v1alpha1.WebhookDispatcher{}
			before.Status.Conditions, after.Status.Conditions = test.before, test.after
			before.Status.Version, after.Status.Version = test.versions[0], test.versions[1]
			if got := texts(OfDispatcher(before, after)); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestNotesFit: what a condition says may be longer than what an Event may.
func TestNotesFit(t *testing.T) {
	t.Parallel()
	if e := warning(ReasonNotAccepted, metav1.Condition{Reason: "InvalidSpec", Message: strings.Repeat("é", maxNote)}); len(e.Note) > maxNote || len(e.Note) < maxNote-2 {
		t.Errorf("a note of %d bytes", len(e.Note))
	}
}

// TestEventsAreBounded: an endpoint that comes and goes says each once in ten minutes, and ten thousand of one namespace that
// fail together leave room to those of another.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)
	recorder := events.NewFakeRecorder(100000)
	a := &Announcer{Recorder: recorder, Logger: logr.Discard(), Now: func() time.Time { return clock }, limit: newLimit()}
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{UID: "a"}}
	for range 60 {
		a.say(sub, []Event{normal(ReasonEndpointRecovered, ""), normal(ReasonEndpointFailing, "")})
		clock = clock.Add(10 * time.Second)
	}
	if n := len(recorder.Events); n != 2 {
		t.Errorf("%d events of one that comes and goes for ten minutes, want 2", n)
	}
	a.say(sub, []Event{normal(ReasonEndpointFailing, "")})
	if n := len(recorder.Events); n != 3 {
		t.Errorf("%d events after ten minutes, want 3", n)
	}
	clock = clock.Add(time.Minute)
	before, heard := len(recorder.Events), 0
	for second := range 60 {
		for i := range 1000 {
			other := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: "greedy", UID: types.UID(fmt.Sprint(second, "-", i))}}
			a.say(other, []Event{normal(ReasonEndpointFailing, "")})
		}
		said := len(recorder.Events)
		quiet := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: "quiet", UID: types.UID(fmt.Sprint("quiet-", second))}}
		a.say(quiet, []Event{normal(ReasonEndpointFailing, "")})
		heard += len(recorder.Events) - said
		clock = clock.Add(time.Second)
	}
	if n := len(recorder.Events) - before; n > perMinute || n < perMinute/2 {
		t.Errorf("%d events in a minute, want at most %d", n, perMinute)
	}
	if heard != 60 {
		t.Errorf("%d of 60 events of a namespace are heard beside another's thousands", heard)
	}
	if n := len(a.limit.recent); n > maxRemembered {
		t.Errorf("%d are remembered", n)
	}
}
