package egress

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/api/signature"
)

// Reserved reports whether a subscription's own headers may not have the name, in whatever case: deliveries have it by
// themselves, it frames the message or governs the connection (RFC 9112), it would change what is answered, or it makes
// a CloudEvent of the delivery (ce-, HTTP protocol binding, section 3.1.3), which could pass for another tenant's. An
// underscore counts as a dash, because many servers take the two for the same (RFC 3875, section 4.1.18).
func Reserved(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if reservedNames[name] {
		return true
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var (
	reservedPrefixes = []string{"ce-", "content-", "proxy-", "webhook-", "x-clinik-", "x-clinikapi-"}
	reservedNames    = lower(
		headerContentType, headerTimestamp, headerEvent, headerDelivery, headerAttempt,
		signature.HeaderBody, signature.HeaderBodyAlias,
		signature.HeaderID, signature.HeaderTimestamp, signature.HeaderStandard,
		"Host", "Content-Length", "Transfer-Encoding", "Trailer", "TE", "Expect",
		"Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "HTTP2-Settings", "Accept-Encoding",
	)
)

func lower(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[strings.ToLower(name)] = true
	}
	return set
}

// additionalHeader returns what of h is sent. Its error names a header only where its name is well-formed.
func additionalHeader(h http.Header) (http.Header, error) {
	added := make(http.Header, len(h))
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("a header's name is not a token of letters, digits and dashes")
		}
		name = http.CanonicalHeaderKey(name)
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("the value of header %s has a control character", name)
			}
		}
		if !Reserved(name) && len(values) > 0 {
			added[name] = values
		}
	}
	return added, nil
}
