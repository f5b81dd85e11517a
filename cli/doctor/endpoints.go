package doctor

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"code.dny.dev/ssrf"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// findEndpoints says of the endpoints whose URL stands in a spec whether DNS knows their names, and whether their dispatcher's
// spec.egress lets them be reached. It sees DNS as this machine does, so all of it is a warning: the dispatcher may see
// something else.
func findEndpoints(in *Installation) []Finding {
	var all []Finding
	for i := range in.Subscriptions {
		sub := &in.Subscriptions[i]
		target, ok := endpointOf(sub)
		if !ok {
			continue
		}
		f := Finding{Level: Warning, Object: object("WebhookSubscription", sub.Namespace, sub.Name)}
		host, looked := in.Hosts[target.host]
		d := in.dispatcher(dispatcherOf(sub))
		switch {
		case looked && host.Unknown:
			f.Problem, f.Why = "DNS does not know the name of its endpoint", "as this machine sees it"
			f.Mend = "kubectl -n " + sub.Namespace + " edit webhooksubscription/" + sub.Name + "    # spec.url"
		case looked && d != nil:
			if f.Problem = in.refuses(d, sub.Namespace, target, host.Addresses); f.Problem == "" {
				continue
			}
			f.Why = "as this machine resolves its name, and by spec.egress of WebhookDispatcher " + d.Namespace + "/" + d.Name
			f.Mend = "kubectl -n " + d.Namespace + " edit webhookdispatcher/" + d.Name + "    # spec.egress.rules for the namespace " + sub.Namespace
		default:
			continue
		}
		all = append(all, f)
	}
	return all
}

// endpoint is where a URL leads to.
type endpoint struct {
	host string
	port uint16
}

// endpointOf is false where the URL is in a Secret, or is none.
func endpointOf(sub *v1alpha1.WebhookSubscription) (endpoint, bool) {
	u, err := url.Parse(sub.Spec.URL)
	if err != nil || u.Hostname() == "" {
		return endpoint{}, false
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), 10, 16)
	return endpoint{u.Hostname(), uint16(port)}, err == nil
}

// inCluster reports whether only the cluster's own DNS knows a name.
func inCluster(host string) bool {
	host = strings.TrimSuffix(host, ".")
	return !strings.Contains(host, ".") && host != "localhost" || strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".cluster.local")
}

// dispatcherOf is the dispatcher that a subscription names.
func dispatcherOf(sub *v1alpha1.WebhookSubscription) client.ObjectKey {
	ref := sub.Spec.DispatcherRef
	return client.ObjectKey{Namespace: cmp.Or(ref.Namespace, "eventflow-system"), Name: cmp.Or(ref.Name, "default")}
}

// refuses says why none of the addresses may be reached; nothing if one may, or if there are none.
func (in *Installation) refuses(d *v1alpha1.WebhookDispatcher, namespace string, to endpoint, addresses []netip.Addr) string {
	problem, port := "", to.port
	for _, a := range addresses {
		a = a.Unmap()
		problem = "its endpoint has an address that spec.egress does not allow"
		if contains(d.Spec.Egress.DeniedCIDRs, a) {
			continue
		}
		ports, ruled := in.ruled(d, namespace, to.host, a)
		if ruled && slices.Contains(ports, int32(port)) {
			return ""
		}
		byRule := ruled && len(ports) == 0
		if !byRule && !contains(d.Spec.Egress.AllowedCIDRs, a) && ssrf.New(ssrf.WithAnyPort()).SafeAddr(a) != nil {
			continue
		}
		if port == 80 || port == 443 || port >= 1024 || slices.Contains(d.Spec.Egress.AllowedPorts, int32(port)) {
			return ""
		}
		problem = "its endpoint has a port that spec.egress does not allow: " + strconv.Itoa(int(port))
	}
	return problem
}

// ruled returns the ports of the rules that hold for the namespace, the host and the address; none if a rule names none.
func (in *Installation) ruled(d *v1alpha1.WebhookDispatcher, namespace, host string, a netip.Addr) (ports []int32, ruled bool) {
	for _, rule := range d.Spec.Egress.Rules {
		if len(rule.Hosts) > 0 && !egress.Hosts(rule.Hosts).Have(host) {
			continue
		}
		if !contains(rule.CIDRs, a) || !in.selects(rule.NamespaceSelector, namespace) {
			continue
		}
		if len(rule.Ports) == 0 {
			return nil, true
		}
		ports, ruled = append(ports, rule.Ports...), true
	}
	return ports, ruled
}

// selects reports whether a selector selects the namespace, also where its labels are not known.
func (in *Installation) selects(by *metav1.LabelSelector, namespace string) bool {
	ns := in.namespace(namespace)
	selector, err := metav1.LabelSelectorAsSelector(by)
	return ns == nil || err == nil && selector.Matches(labels.Set(ns.Labels))
}

func contains(cidrs []string, a netip.Addr) bool {
	return slices.ContainsFunc(cidrs, func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(a)
	})
}
