package subscription

import (
	"net/netip"
	"slices"
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

// TestHostsOf: the hosts of all rules that select a namespace count, and a selector that is none binds it to nothing.
func TestHostsOf(t *testing.T) {
	t.Parallel()
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Unknown"}}}
	rules := []v1alpha1.EgressRule{
		{NamespaceSelector: labelled("tier", "gold"), Hosts: []string{"b.example.com", "a.example.com"}},
		{NamespaceSelector: labelled("zone", "a"), Hosts: []string{"a.example.com", "*.example.org"}, CIDRs: []string{"10.0.0.0/8"}},
		{NamespaceSelector: &metav1.LabelSelector{}, CIDRs: []string{"10.1.0.0/16"}},
		{Hosts: []string{"c.example.com"}},
	}
	for name, test := range map[string]struct {
		rules []v1alpha1.EgressRule
		set   labels.Set
		want  []string
		bound bool
	}{
		"no rule":                 {rules, nil, nil, false},
		"one":                     {rules, labels.Set{"tier": "gold"}, []string{"a.example.com", "b.example.com"}, true},
		"two":                     {rules, labels.Set{"tier": "gold", "zone": "a"}, []string{"*.example.org", "a.example.com", "b.example.com"}, true},
		"a selector that is none": {[]v1alpha1.EgressRule{{NamespaceSelector: broken, Hosts: []string{"a.example.com"}}}, nil, nil, true},
	} {
		got, bound := hostsOf(test.rules, test.set)
		if !slices.Equal(got, test.want) || bound != test.bound {
			t.Errorf("%s: %v, bound %t; want %v, %t", name, got, bound, test.want, test.bound)
		}
	}
	d := &v1alpha1.WebhookDispatcher{Spec: v1alpha1.WebhookDispatcherSpec{Egress: v1alpha1.Egress{Rules: rules}}}
	before := termsOf(d, "u", labels.Set{"tier": "gold"}).fingerprint()
	rules[0].Hosts = []string{"b.example.com"}
	if termsOf(d, "u", labels.Set{"tier": "gold"}).fingerprint() == before {
		t.Error("other hosts have the same fingerprint")
	}
}
