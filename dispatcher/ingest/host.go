package ingest

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ownDomains are the last labels of host names that nobody can register: a page in a browser cannot have such a name from
// the public DNS (RFC 6761, RFC 6762, RFC 8375, and .internal, which ICANN reserved). ".svc" is how Kubernetes abbreviates names of Services.
var ownDomains = []string{"localhost", "local", "internal", "svc", "test", "home.arpa"}

// knownHost reports whether a request's Host leads to this dispatcher for sure: it is an IP address, a name without a
// dot, a name that nobody can register, or one of hosts. Any other name may be a web page's that was made to lead here (DNS
// rebinding).
func knownHost(host string, hosts []string) bool {
	name := hostName(host)
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") {
		return true
	}
	for _, domain := range ownDomains {
		if strings.HasSuffix(name, "."+domain) {
			return true
		}
	}
	return slices.Contains(hosts, name)
}

// hostName returns the name in a Host header, in lower case, without a port and without the dot at the end.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// fromBrowser reports whether a browser sent the request for a page. Browsers put an Origin on every request that is not
// a GET or HEAD (Fetch standard, section 3.2), and pages cannot remove it. A GET may come from one, whatever its headers.
func fromBrowser(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	}
	return len(r.Header["Origin"]) > 0 || len(r.Header["Sec-Fetch-Site"]) > 0
}

// checkHost refuses, without authentication, what a web page may have sent whose own host name leads to this dispatcher.
func (h *Handler) checkHost(r *http.Request) error {
	if !fromBrowser(r) || knownHost(r.Host, h.options.Hosts) {
		return nil
	}
	return newProblem(misdirected, "without authentication, this dispatcher does not answer under the host name %s; use an IP address or the name of its Service, or allow the name with --ingest-host (spec.ingest.hosts of the WebhookDispatcher)", quoted(hostName(r.Host)))
}
