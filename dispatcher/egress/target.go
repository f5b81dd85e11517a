package egress

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/dispatcher/signature"
)

// DefaultTimeout bounds an attempt whose Target sets no timeout.
const DefaultTimeout = 30 * time.Second

// Target is where a subscription's deliveries go, and what they carry beside the event. It is immutable once made, and
// is passed by pointer.
type Target struct {
	// URL is absolute, http or https. It may carry tokens and is never logged. User and password in it are sent as
	// Authorization, unless Header has that; a fragment is not sent.
	URL string
	// Header is added to every delivery. It never replaces a header that deliveries have by themselves, nor one that
	// frames the message or governs the connection (Host, Content-Length, Connection, …): those are left out.
	Header http.Header
	// Keys sign, the current one first; there is at least one.
	Keys signature.Keys
	// Timeout bounds one attempt, from dialling until the answer's headers were read; 0 means DefaultTimeout.
	Timeout time.Duration
	// Thin delivers which resource changed and nothing of what it holds.
	Thin bool

	prepared atomic.Pointer[preparedTarget] // made when first needed
}

// preparedTarget is what every attempt needs of a Target.
type preparedTarget struct {
	head      []byte // of every request
	address   string // to dial
	key       string // of the connections that may be used
	plaintext bool   // http
	timeout   time.Duration
}

// Check returns an error if no delivery can be sent to t because of how it is written: its URL is not absolute, a
// header is not one, it has no key. The error names the part at fault and shows nothing of it.
func (t *Target) Check() error {
	_, err := t.prepare()
	return err
}

func (t *Target) prepare() (*preparedTarget, error) {
	if p := t.prepared.Load(); p != nil {
		return p, nil
	}
	p := &preparedTarget{timeout: t.Timeout}
	if p.timeout <= 0 {
		p.timeout = DefaultTimeout
	}
	if len(t.Keys) == 0 {
		return nil, errors.New("there is no key to sign with")
	}
	u, err := parseURL(t.URL)
	if err != nil {
		return nil, err
	}
	header, err := additionalHeader(t.Header)
	if err != nil {
		return nil, err
	}
	if user := u.User; user != nil && header["Authorization"] == nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		header["Authorization"] = []string{"Basic " + credentials}
	}
	p.plaintext = u.Scheme == "http"
	p.head, p.address = head(u, header), addressOf(u)
	p.key = u.Scheme + "://" + p.address
	t.prepared.Store(p) // another attempt may have prepared the same
	return p, nil
}

// addressOf is what to dial for the URL.
func addressOf(u *url.URL) string {
	host, port := u.Hostname(), u.Port()
	if ascii, err := httpguts.PunycodeHostPort(host); err == nil {
		host = ascii
	}
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(host, port)
}

// parseURL returns an absolute http or https URL. Its error does not wrap that of package url, which quotes the URL.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, errors.New("the URL is not an absolute http or https URL")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the URL's port is not a number from 1 to 65535")
		}
	}
	return u, nil
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
		if !reserved[name] && len(values) > 0 {
			added[name] = values
		}
	}
	return added, nil
}

// reserved are the headers that a Target cannot set, in canonical form: those of product deliveries, and those that
// frame a message or govern its connection.
var reserved = canonical(
	headerContentType, headerUserAgent, headerTimestamp, headerEvent, headerDelivery, headerAttempt,
	signature.HeaderBody, signature.HeaderBodyAlias,
	signature.HeaderID, signature.HeaderTimestamp, signature.HeaderStandard,
	"Host", "Content-Length", "Transfer-Encoding", "Trailer", "TE", "Expect",
	"Connection", "Keep-Alive", "Proxy-Connection", "Upgrade",
)

func canonical(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[http.CanonicalHeaderKey(name)] = true
	}
	return set
}
