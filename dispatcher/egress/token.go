package egress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// maxTokens is how many tokens are kept for a tenant; the one that was used longest ago makes room.
	maxTokens = 64
	// maxToken is how long one may be, in bytes: it goes with every request.
	maxToken = 16 << 10
	// tokenIdle is how long a token is kept that nobody uses.
	tokenIdle = time.Hour
	// tokenMargin is how long before its end a token is not used any more, if it lives for much longer.
	tokenMargin = 30 * time.Second
	// tokenTimeout bounds one request for a token. Attempts that wait for it have their own timeouts.
	tokenTimeout = 30 * time.Second
	// minTokenPause and maxTokenPause bound the wait after a request that failed; it doubles with each.
	minTokenPause, maxTokenPause = time.Second, time.Minute
	// refusedPause is how old a token must be for an answer of 401 to replace it: an endpoint that takes no token at all
	// must not cost a request for each attempt.
	refusedPause = 10 * time.Second
)

var errNoToken = errors.New("no access token could be had")

// tokenKey is what two attempts must share to share a token.
type tokenKey struct {
	tenant string
	sum    [sha256.Size]byte // of the credentials, and of what the target trusts and may reach
}

// token is one token, or the want of it.
type token struct {
	value        string
	minted, ends time.Time // ends is zero if it is not known
	used         time.Time
	fetching     chan struct{} // closed when the request under way has ended; nil without one
	failures     int
	next         time.Time // before it, no request is made
}

// tokens are the access tokens of all tenants. One request serves all attempts that wait for the same token.
type tokens struct {
	run  context.Context //nolint:containedctx // requests for tokens outlive the attempts that began them
	stop context.CancelFunc
	runs sync.WaitGroup

	mu     sync.Mutex
	closed bool
	all    map[tokenKey]*token
	count  map[string]int // by tenant
}

func newTokens() *tokens {
	t := &tokens{all: map[tokenKey]*token{}, count: map[string]int{}}
	t.run, t.stop = context.WithCancel(context.Background())
	return t
}

// close ends the requests under way, and waits for them.
func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.runs.Wait()
}

func keyOf(tenant string, target *preparedTarget) tokenKey {
	sum := sha256.New()
	c := target.tokens
	_, _ = fmt.Fprintf(sum, "%q%q%q%q%q%t", c.TokenURL, c.ClientID, c.ClientSecret, c.Audience, c.Scopes, c.InBody) // a hash fails never
	sum.Write([]byte(target.fingerprint()))
	return tokenKey{tenant, [sha256.Size]byte(sum.Sum(nil))}
}

// tokenFor returns the token for a request, or the reason why there is none.
func (c *Client) tokenFor(ctx context.Context, r *Request, target *preparedTarget, deadline time.Time) (string, delivery.Reason) {
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	tenant := r.Tenant // the closure must not hold r, which would then be allocated for every attempt
	value, err := c.tokens.get(within, keyOf(tenant, target), func(ctx context.Context) (*oauth2.Token, error) {
		return c.fetchToken(ctx, tenant, target)
	})
	switch {
	case err == nil:
		return value, ""
	case ctx.Err() != nil:
		return "", delivery.ReasonInterrupted
	}
	return "", delivery.ReasonAuthFailed
}

// get returns a token that holds, and waits for one if there is none.
func (t *tokens) get(ctx context.Context, key tokenKey, fetch func(context.Context) (*oauth2.Token, error)) (string, error) {
	for waited := false; ; waited = true {
		value, fetching, err := t.look(key, waited, fetch)
		if fetching == nil {
			return value, err
		}
		select {
		case <-fetching:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// look returns the token, or what to wait for. Who has waited already starts no further request.
func (t *tokens) look(key tokenKey, waited bool, fetch func(context.Context) (*oauth2.Token, error)) (string, chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	k, ok := t.all[key]
	if !ok {
		if k = t.add(key, now); k == nil {
			return "", nil, errNoToken
		}
	}
	k.used = now
	switch {
	case k.value != "" && (k.ends.IsZero() || now.Before(k.ends)):
		return k.value, nil, nil
	case k.fetching != nil:
		return "", k.fetching, nil
	case waited || t.closed || now.Before(k.next):
		return "", nil, errNoToken
	}
	k.value, k.fetching = "", make(chan struct{})
	t.runs.Go(func() { t.fetch(k, fetch) })
	return "", k.fetching, nil
}

// fetch makes one request for a token.
func (t *tokens) fetch(k *token, fetch func(context.Context) (*oauth2.Token, error)) {
	ctx, cancel := context.WithTimeout(t.run, tokenTimeout)
	defer cancel()
	got, err := fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	close(k.fetching)
	now := time.Now()
	k.fetching = nil
	if err != nil || len(got.AccessToken) > maxToken || !httpguts.ValidHeaderFieldValue(got.AccessToken) {
		k.next = now.Add(min(minTokenPause<<min(k.failures, 10), maxTokenPause))
		k.failures++
		return
	}
	k.value, k.minted, k.ends, k.failures = got.AccessToken, now, time.Time{}, 0
	if !got.Expiry.IsZero() {
		left := got.Expiry.Sub(now)
		k.ends = now.Add(left - min(tokenMargin, left/10))
	}
}

// add makes a place for a token of the tenant; nil if all of its places are being filled.
func (t *tokens) add(key tokenKey, now time.Time) *token {
	for other, k := range t.all {
		if k.fetching == nil && now.Sub(k.used) > tokenIdle {
			t.remove(other)
		}
	}
	if t.count[key.tenant] >= maxTokens && !t.evict(key.tenant) {
		return nil
	}
	k := &token{}
	t.all[key] = k
	t.count[key.tenant]++
	return k
}

// evict removes the tenant's token that was used longest ago.
func (t *tokens) evict(tenant string) bool {
	var oldest *token
	var at tokenKey
	for key, k := range t.all {
		if key.tenant == tenant && k.fetching == nil && (oldest == nil || k.used.Before(oldest.used)) {
			oldest, at = k, key
		}
	}
	if oldest != nil {
		t.remove(at)
	}
	return oldest != nil
}

func (t *tokens) remove(key tokenKey) {
	delete(t.all, key)
	if t.count[key.tenant]--; t.count[key.tenant] == 0 {
		delete(t.count, key.tenant)
	}
}

// refuse drops a token that an endpoint answered 401 to, and reports whether the request is to be repeated with the next.
func (t *tokens) refuse(tenant string, target *preparedTarget, value string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.all[keyOf(tenant, target)]
	switch {
	case !ok || k.value != value:
		return true // another attempt has replaced it
	case time.Since(k.minted) < refusedPause:
		return false
	}
	k.value = ""
	return true
}

// fetchToken makes one request to the token endpoint, guarded as a delivery is.
func (c *Client) fetchToken(ctx context.Context, tenant string, target *preparedTarget) (*oauth2.Token, error) {
	endpoint, err := c.tokenEndpoint(target)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		made, err := c.dialer.connect(ctx, endpoint, poolKey{tenant: tenant, endpoint: endpoint.key})
		if err != nil {
			return nil, err
		}
		return &tokenConn{Conn: made.Conn, made: made}, nil
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: dial, DialTLSContext: dial, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	config := clientcredentials.Config{
		ClientID: target.tokens.ClientID, ClientSecret: target.tokens.ClientSecret, TokenURL: target.tokens.TokenURL,
		Scopes: target.tokens.Scopes, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if target.tokens.InBody {
		config.AuthStyle = oauth2.AuthStyleInParams
	}
	if target.tokens.Audience != "" {
		config.EndpointParams = url.Values{"audience": {target.tokens.Audience}}
	}
	got, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, errNoToken // the library's error holds the answer
	}
	return got, nil
}

// tokenEndpoint is the token endpoint as the dialler wants it.
func (c *Client) tokenEndpoint(target *preparedTarget) (*preparedTarget, error) {
	u, err := parseURL(target.tokens.TokenURL)
	if err != nil {
		return nil, err
	}
	return c.preparedFor(u, target)
}

// preparedFor is another URL of the target's subscription as the dialler wants it.
func (c *Client) preparedFor(u *url.URL, target *preparedTarget) (*preparedTarget, error) {
	p := &preparedTarget{
		address: addressOf(u), plaintext: u.Scheme == "http", timeout: target.timeout, terms: target.terms,
		tls: target.tls,
	}
	if p.address != target.address || p.plaintext {
		p.tls = target.tls.elsewhere()
	}
	if p.plaintext && !c.dialer.guard.Load().plaintext {
		return nil, &failure{reason: delivery.ReasonHTTPNotAllowed, err: errors.New("the URL is not https")}
	}
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil, errors.New("the URL's host and port cannot be told apart")
	}
	p.host = host
	if p.address == target.address {
		p.fixed = target.fixed
	}
	if p.fixed == nil {
		if err := p.bound(); err != nil {
			return nil, err
		}
	}
	p.key = u.Scheme + "://" + p.address + p.fingerprint()
	return p, nil
}

// tokenConn is a connection for one request that package http makes.
type tokenConn struct {
	net.Conn
	made *conn
}

// Close closes the connection and waits for nothing.
func (c *tokenConn) Close() error { return c.made.Close() }
