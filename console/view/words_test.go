package view

import (
	"os"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// reasonsOf are the reasons that a file of Go declares.
func reasonsOf(t *testing.T, file, pattern string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		all = append(all, match[1])
	}
	if len(all) < 20 {
		t.Fatalf("%s has %d reasons only", file, len(all))
	}
	return all
}

// TestEveryReasonHasWords: each that a condition may have, and each of an attempt and of a delivery that ended.
func TestEveryReasonHasWords(t *testing.T) {
	t.Parallel()
	for _, reason := range reasonsOf(t, "../../api/v1alpha1/conditions.go", `(?m)^\s+Reason\w+ += "(\w+)"`) {
		if meaning(reason) == "" {
			t.Errorf("no words for the condition's reason %s", reason)
		}
	}
	for _, reason := range reasonsOf(t, "../../dispatcher/delivery/reason.go", `(?m)^\s+Reason\w+ +Reason += "(\w+)"`) {
		if attemptMeaning(reason) == "" && !delivery.Reason(reason).Repeats() {
			t.Errorf("no words for the attempt's reason %s", reason)
		}
	}
	if reason := v1alpha1.ReasonHostNotAllowed; meaning(reason) == attemptMeaning(reason) {
		t.Errorf("the condition and the attempt say the same of %s", reason)
	}
}

// TestEndpointInWords: where deliveries go, also if there is no URL to show.
func TestEndpointInWords(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*v1alpha1.WebhookSubscription)
		want   string
	}{
		"a URL":     {func(s *v1alpha1.WebhookSubscription) { s.Spec.URL = "https://example.com/in" }, "https://example.com/in"},
		"a Secret":  {func(*v1alpha1.WebhookSubscription) {}, "from a Secret"},
		"a Service": {func(s *v1alpha1.WebhookSubscription) { s.Spec.ServiceRef.Name = "receiver" }, "Service receiver"},
		"pulled":    {func(s *v1alpha1.WebhookSubscription) { s.Spec.Delivery.Mode = v1alpha1.DeliveryPull }, "none: the consumer pulls"},
		"pulled, and the status has not caught up": {func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Delivery.Mode, s.Status.Endpoint = v1alpha1.DeliveryPull, "https://example.com"
		}, "none: the consumer pulls"},
	} {
		m := &Subscription{Sub: &v1alpha1.WebhookSubscription{}}
		test.change(m.Sub)
		if got := endpoint(m); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestReadyOfPulled: nothing is delivered before the consumer asks.
func TestReadyOfPulled(t *testing.T) {
	t.Parallel()
	m := &Subscription{Sub: &v1alpha1.WebhookSubscription{}}
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady}
	if got := m.meaning(ready); got != "An event published now is delivered." {
		t.Errorf("with an endpoint: %s", got)
	}
	m.Sub.Spec.Delivery.Mode = v1alpha1.DeliveryPull
	if got := m.meaning(ready); !strings.Contains(got, "waits until the consumer pulls") {
		t.Errorf("pulled: %s", got)
	}
}
