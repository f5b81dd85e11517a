package egress

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/api/signature"
)

// DefaultTimeout bounds an attempt whose Target sets no timeout.
const DefaultTimeout = 30 * time.Second

// Nowhere is the URL of a target to which nothing is sent, because its consumer pulls. Its host is one that never exists
// (RFC 2606, section 2).
const Nowhere = "https://pull.invalid/"

// Target is where a subscription's deliveries go, and what they carry beside the event. It is immutable once made, and
// is passed by pointer.
type Target struct {
	// URL is absolute, http or https. It may carry tokens and is never logged. User and password in it are sent as
	// Authorization, unless Header has that; a fragment is not sent.
	URL string
	// Header is added to every delivery, but what is Reserved. A User-Agent replaces that of the product.
	Header http.Header
	// Keys sign, the current one first; there is at least one.
	Keys signature.Keys
	// Timeout bounds one attempt, from dialling until the answer's headers were read; 0 means DefaultTimeout.
	Timeout time.Duration
	// Authorization authenticates requests; nil for none.
	Authorization *Authorization
	// Handshake asks the endpoint for its consent; nil for not.
	Handshake *Handshake
	// TLS is what is asked of https connections; nil for what the dispatcher asks of all.
	TLS *TLS
	// Reach is where deliveries go beside what all may reach; nil for nowhere. Few targets have one.
	Reach *Reach

	prepared atomic.Pointer[preparedTarget] // made when first needed
}

// preparedTarget is what every attempt needs of a Target.
type preparedTarget struct {
	head      []byte // of every delivery; Shape writes another
	parts     parts  // of head
	address   string // to dial
	host      string // that the certificate must name
	key       string // of the connections that may be used, with the tenant
	plaintext bool   // http
	named     bool   // head has a User-Agent
	traced    bool   // head has a trace context
	timeout   time.Duration
	tls       *TLS
	rules     []Rule // of terms, for this host
	terms     *terms
	fixed     *fixed             // dialled in place of address; nil for a look-up
	tokens    *ClientCredentials // whose token every request carries; nil for none
	consent   *consent           // nil without a Handshake
}

// Check returns an error if no delivery can be sent to t because of how it is written: its URL is not absolute, a
// header is not one, it has no key. The error names the part at fault and shows nothing of it.
func (t *Target) Check() error {
	_, err := t.prepare()
	return err
}

// TimeLimit is how long an attempt may take.
func (t *Target) TimeLimit() time.Duration {
	if t.Timeout <= 0 {
		return DefaultTimeout
	}
	return t.Timeout
}

func (t *Target) prepare() (*preparedTarget, error) {
	if p := t.prepared.Load(); p != nil {
		return p, nil
	}
	p := &preparedTarget{timeout: t.TimeLimit(), tls: t.TLS}
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
	if err := t.Authorization.addTo(header); err != nil {
		return nil, err
	}
	p.tokens = t.Authorization.credentials()
	if t.Handshake != nil {
		if p.consent, err = newConsent(t.Handshake); err != nil {
			return nil, err
		}
		header[headerRequestOrigin] = []string{t.Handshake.Origin}
	}
	if user := u.User; user != nil && header["Authorization"] == nil && t.Authorization == nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		header["Authorization"] = []string{"Basic " + credentials}
	}
	p.plaintext = u.Scheme == "http"
	if p.plaintext && t.TLS != nil && t.TLS.Identity != nil {
		return nil, errors.New("the URL is http, which shows no client certificate")
	}
	p.named, p.traced = header[headerUserAgent] != nil, header[headerTraceparent] != nil
	p.head, p.parts = head(u, header)
	p.address = addressOf(u)
	if p.host, _, err = net.SplitHostPort(p.address); err != nil {
		return nil, errors.New("the URL's host and port cannot be told apart")
	}
	if err := p.reach(t.Reach); err != nil {
		return nil, err
	}
	p.key = u.Scheme + "://" + p.address + p.fingerprint()
	if !t.prepared.CompareAndSwap(nil, p) { // another attempt has prepared the same
		p = t.prepared.Load()
	}
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
	if strings.Contains(u.Hostname(), "%") { // RFC 6874; only addresses that are never dialled need one
		return nil, errors.New("the URL's host has a zone, or another percent sign")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the URL's port is not a number from 1 to 65535")
		}
	}
	return u, nil
}

// fingerprint tells apart what targets ask of TLS, may reach and are fixed to; it is empty for what all do. A connection that
// was made under one is not used under another.
func (p *preparedTarget) fingerprint() string {
	if (p.tls == nil || *p.tls == TLS{}) && p.terms == nil && p.fixed == nil {
		return ""
	}
	sum := sha256.New()
	if p.tls != nil {
		p.tls.writeTo(sum)
	}
	if p.terms != nil {
		_, _ = fmt.Fprintf(sum, " %q %v", p.terms.within, p.terms.rules) // a hash fails never
	}
	_, _ = fmt.Fprint(sum, p.tls != nil, p.fixed.all())
	return "#" + hex.EncodeToString(sum.Sum(nil))
}
