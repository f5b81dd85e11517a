package subscription

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// lacking says what a subscription whose endpoint is in the cluster still needs of its dispatcher's egress rules; "" if
// nothing, or nothing is known. address is the endpoint's URL.
func (in *circumstances) lacking(namespace, address string) string {
	u, err := url.Parse(address)
	if err != nil || in.dispatcher == nil || in.granted == nil || !isInternal(u.Hostname()) || in.opens(u.Hostname()) {
		return ""
	}
	return fmt.Sprintf("the endpoint's host is one of the cluster or of a private network, whose addresses no rule opens to namespace %s, and deliveries fail with AddressNotAllowed: add a rule with their range to spec.egress.rules of WebhookDispatcher %s in namespace %s",
		namespace, in.dispatcher.Name, in.dispatcher.Namespace)
}

// hint is what the condition Accepted adds about an entry that was accepted.
func (in *circumstances) hint(entry *routing.Entry) string {
	var hints []string
	if end, ok := entry.ClientCertificateEnd(); ok {
		hints = append(hints, "its client certificate is valid until "+end.UTC().Format(time.RFC3339))
	}
	if lacking := in.lacking(entry.Namespace, entry.URL); lacking != "" && len(entry.Service) == 0 {
		hints = append(hints, lacking)
	}
	return strings.Join(hints, "; ")
}

// isInternal reports whether a host can only be one of the cluster, or of a private network.
func isInternal(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return address.IsPrivate() || address.IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host != "" && !strings.Contains(host, ".") || strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".cluster.local")
}

// opens reports whether a rule may open the addresses of a host: of a name, any rule may.
func (in *circumstances) opens(host string) bool {
	var ranges []netip.Prefix
	for _, text := range in.dispatcher.Spec.Egress.AllowedCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	for _, rule := range in.granted.egress {
		if len(rule.Hosts) > 0 && !rule.Hosts.Have(host) {
			continue
		}
		ranges = append(ranges, rule.CIDRs...)
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return len(ranges) > 0
	}
	for _, prefix := range ranges {
		if prefix.Contains(address.Unmap()) {
			return true
		}
	}
	return false
}

// completed adds to a rejection that http is not allowed what will be missing after that, so that one look tells all.
func completed(rejection *routing.Rejection, lacking string) *routing.Rejection {
	if lacking == "" || rejection.Reason != v1alpha1.ReasonHTTPNotAllowed {
		return rejection
	}
	return &routing.Rejection{Reason: rejection.Reason, Message: rejection.Message + "; and " + lacking}
}
