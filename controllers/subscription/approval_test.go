package subscription

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func TestApprovedHosts(t *testing.T) {
	t.Parallel()
	destination := func(selector *metav1.LabelSelector, hosts ...string) v1alpha1.WebhookDestination {
		return v1alpha1.WebhookDestination{Spec: v1alpha1.WebhookDestinationSpec{Hosts: hosts, NamespaceSelector: selector}}
	}
	destinations := []v1alpha1.WebhookDestination{
		destination(labelled("tier", "gold"), "b.example.com", "a.example.com"),
		destination(&metav1.LabelSelector{}, "a.example.com"),
		destination(nil, "c.example.com"),
		destination(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Unknown"}}}, "d.example.com"),
	}
	for want, set := range map[string]labels.Set{"a.example.com": nil, "a.example.com b.example.com": {"tier": "gold"}} {
		if got := approvedHosts(destinations, set); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%v: approved are %v, want %s", set, got, want)
		}
	}
}

// TestNothingIsApprovedWithRolesAlone: such a manager sees no approval, says so, and does not claim that one would be taken over.
func TestNothingIsApprovedWithRolesAlone(t *testing.T) {
	t.Parallel()
	r := &Reconciler{Namespaces: NewPolledNamespaces(nil)}
	d := &v1alpha1.WebhookDispatcher{}
	granted := &terms{}
	if err := r.approvals(t.Context(), d, nil, granted); err != nil || len(granted.bounds) != 0 {
		t.Errorf("where nobody asked: %v, %+v", err, granted.bounds)
	}
	d.Spec.Egress.Approval = v1alpha1.ApprovalRequired
	if err := r.approvals(t.Context(), d, nil, granted); err != nil || len(granted.bounds) != 1 || len(granted.bounds[0].Hosts) != 0 || passes(granted.bounds[0].Reason) || !strings.Contains(granted.bounds[0].Mend, "Roles alone") {
		t.Errorf("%v, %+v", err, granted.bounds)
	}
}
