package subscription

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

func labelled(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func TestTermsOf(t *testing.T) {
	t.Parallel()
	d := &v1alpha1.WebhookDispatcher{Spec: v1alpha1.WebhookDispatcherSpec{
		Quotas: v1alpha1.Quotas{
			TenantLimits: v1alpha1.TenantLimits{Subscriptions: 10, PendingBytes: resource.MustParse("1Gi"), EventsPerSecond: 100},
			Overrides: []v1alpha1.QuotaOverride{
				{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Unknown"}}}, TenantLimits: v1alpha1.TenantLimits{Subscriptions: 1}},
				{NamespaceSelector: labelled("tier", "gold"), TenantLimits: v1alpha1.TenantLimits{Subscriptions: 100, ConfigurationBytes: resource.MustParse("1Mi"), AttemptsInFlight: 7}},
				{NamespaceSelector: labelled("tier", "gold"), TenantLimits: v1alpha1.TenantLimits{Subscriptions: 1000}},
			},
		},
		Egress: v1alpha1.Egress{Rules: []v1alpha1.EgressRule{
			{NamespaceSelector: labelled("zone", "a"), CIDRs: []string{"10.0.0.1/32", "fd00::/8"}, Ports: []int32{443, 8443}},
			{NamespaceSelector: &metav1.LabelSelector{}, CIDRs: []string{"10.1.2.3/16"}},
			{CIDRs: []string{"10.2.0.0/16"}},
		}},
	}}
	all := routing.EgressRule{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for name, tc := range map[string]struct {
		labels labels.Set
		want   terms
	}{
		"no label": {nil, terms{tenant: "u", subscriptions: 10, egress: []routing.EgressRule{all}}},
		"the first override, over what holds for all": {labels.Set{"tier": "gold"}, terms{
			tenant: "u", subscriptions: 100, bytes: 1 << 20, egress: []routing.EgressRule{all},
			quota: &routing.Quota{EventsPerSecond: 100, PendingBytes: 1 << 30, AttemptsInFlight: 7},
		}},
		"every rule": {labels.Set{"zone": "a"}, terms{tenant: "u", subscriptions: 10, egress: []routing.EgressRule{
			{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}, Ports: []uint16{443, 8443}}, all,
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := termsOf(d, "u", tc.labels)
			if diff := cmp.Diff(tc.want, *got, cmp.AllowUnexported(terms{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if other := termsOf(d, "v", tc.labels); other.fingerprint() == got.fingerprint() || got.fingerprint() != termsOf(d, "u", tc.labels).fingerprint() {
				t.Error("a fingerprint does not follow from the terms")
			}
		})
	}
}
