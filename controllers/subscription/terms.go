package subscription

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// terms are what a dispatcher lets a namespace have.
type terms struct {
	tenant        string // the namespace's uid
	subscriptions int64  // 0 is no limit
	bytes         int64  // of configuration; 0 is no limit
	quota         *routing.Quota
	egress        []routing.EgressRule
	bounds        []routing.Bound // which hosts it may deliver to
}

// termsOf returns the terms of the namespace with the given uid and labels.
func termsOf(d *v1alpha1.WebhookDispatcher, uid string, set labels.Set) *terms {
	limits, overridden := limitsOf(&d.Spec.Quotas, set)
	t := &terms{
		tenant:        uid,
		subscriptions: int64(limits.Subscriptions),
		bytes:         limits.ConfigurationBytes.Value(),
		egress:        egressOf(d.Spec.Egress.Rules, set),
	}
	if hosts, bound := hostsOf(d.Spec.Egress.Rules, set); bound {
		t.bounds = append(t.bounds, routing.Bound{
			Hosts: hosts, Reason: v1alpha1.ReasonHostNotAllowed,
			Mend: fmt.Sprintf("add it to the hosts of a rule in spec.egress.rules of WebhookDispatcher %s in namespace %s, or name another host", d.Name, d.Namespace),
		})
	}
	if overridden {
		t.quota = &routing.Quota{
			EventsPerSecond:     int(limits.EventsPerSecond),
			EventsBurst:         int(limits.EventsBurst),
			PendingBytes:        limits.PendingBytes.Value(),
			PendingDeliveries:   limits.PendingDeliveries,
			ScheduledDeliveries: limits.ScheduledDeliveries,
			AttemptsInFlight:    int(limits.AttemptsInFlight),
		}
	}
	return t
}

// limitsOf merges the first override that selects a namespace over what holds for all.
func limitsOf(quotas *v1alpha1.Quotas, set labels.Set) (limits v1alpha1.TenantLimits, overridden bool) {
	limits = quotas.TenantLimits
	for i := range quotas.Overrides {
		o := &quotas.Overrides[i]
		if o.NamespaceSelector == nil || !selects(o.NamespaceSelector, set) {
			continue
		}
		return v1alpha1.TenantLimits{
			Subscriptions:       cmp.Or(o.Subscriptions, limits.Subscriptions),
			ConfigurationBytes:  either(o.ConfigurationBytes, limits.ConfigurationBytes),
			EventsPerSecond:     cmp.Or(o.EventsPerSecond, limits.EventsPerSecond),
			EventsBurst:         cmp.Or(o.EventsBurst, limits.EventsBurst),
			PendingBytes:        either(o.PendingBytes, limits.PendingBytes),
			PendingDeliveries:   cmp.Or(o.PendingDeliveries, limits.PendingDeliveries),
			ScheduledDeliveries: cmp.Or(o.ScheduledDeliveries, limits.ScheduledDeliveries),
			AttemptsInFlight:    cmp.Or(o.AttemptsInFlight, limits.AttemptsInFlight),
		}, true
	}
	return limits, false
}

// either is the first of two quantities, if it is set.
func either(a, b resource.Quantity) resource.Quantity {
	if a.IsZero() {
		return b
	}
	return a
}

// egressOf returns all rules that select a namespace. The schema lets nothing pass that is no CIDR.
func egressOf(rules []v1alpha1.EgressRule, set labels.Set) []routing.EgressRule {
	var found []routing.EgressRule
	for i := range rules {
		if rules[i].NamespaceSelector == nil || !selects(rules[i].NamespaceSelector, set) {
			continue
		}
		rule := routing.EgressRule{Hosts: rules[i].Hosts}
		for _, text := range rules[i].CIDRs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				rule.CIDRs = append(rule.CIDRs, prefix.Masked())
			}
		}
		for _, port := range rules[i].Ports {
			rule.Ports = append(rule.Ports, uint16(port))
		}
		if len(rule.CIDRs) > 0 {
			found = append(found, rule)
		}
	}
	return slices.Clip(found)
}

// hostsOf returns the hosts of all rules that select a namespace, and whether it is bound to them. A selector that is none selects
// nothing, and binds all the same.
func hostsOf(rules []v1alpha1.EgressRule, set labels.Set) (hosts []string, bound bool) {
	for i := range rules {
		if len(rules[i].Hosts) == 0 || rules[i].NamespaceSelector == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(rules[i].NamespaceSelector)
		if err == nil && selector.Matches(set) {
			hosts = append(hosts, rules[i].Hosts...)
		}
		bound = bound || err != nil || selector.Matches(set)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), bound
}

// apply writes the terms into an entry.
func (t *terms) apply(entry *routing.Entry) {
	if t != nil {
		entry.Tenant, entry.Quota, entry.Egress = t.tenant, t.quota, t.egress
	}
}

// limits are what the table is to hold a subscription's namespace to.
func (t *terms) limits(sub *v1alpha1.WebhookSubscription) routes.Limits {
	return routes.Limits{Subscriptions: t.subscriptions, Bytes: t.bytes, Created: sub.CreationTimestamp.Time}
}

// fingerprint is equal for equal terms alone.
func (t *terms) fingerprint() string {
	quota := routing.Quota{}
	if t.quota != nil {
		quota = *t.quota
	}
	text := fmt.Sprint(t.tenant, t.subscriptions, t.bytes, t.quota != nil, quota, t.egress)
	for _, bound := range t.bounds {
		text += fmt.Sprintf(" %s %q", bound.Reason, bound.Hosts)
	}
	return text
}
