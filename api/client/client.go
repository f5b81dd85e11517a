package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// The defaults of Config.
const (
	DefaultTimeout  = 30 * time.Second
	DefaultRetryFor = time.Minute
)

// maxAnswer bounds an answer in bytes: 1,000 deliveries need less than 1 MiB.
const maxAnswer = 8 << 20

// Token returns the bearer token of a request, such as a ServiceAccount's. It is asked before each attempt, so that a token may
// be renewed, and may be called at the same time by several goroutines.
type Token func(context.Context) (string, error)

// StaticToken returns a Token that is always the same.
func StaticToken(token string) Token {
	return func(context.Context) (string, error) { return token, nil }
}

// TokenFile returns a Token that is read from a file each time: the kubelet renews it there.
func TokenFile(name string) Token {
	return func(context.Context) (string, error) {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(string(text)), nil
	}
}

// Config says which dispatcher a Client asks, and how. URL is required.
type Config struct {
	// URL is the dispatcher's, up to "/v1": status.publishURL of the WebhookDispatcher.
	URL string
	// Token authenticates requests; nil for none.
	Token Token
	// TLS is how an https URL's server is verified; nil for the system's certificate authorities. It is not used with Transport.
	TLS *tls.Config
	// Transport makes the requests; NewTransport(TLS) if nil. Clients that share one share its connections.
	Transport http.RoundTripper
	// UserAgent is the header of that name; Go's own if empty.
	UserAgent string
	// Timeout bounds each attempt, with its answer; DefaultTimeout if 0.
	Timeout time.Duration
	// RetryFor bounds how long Publish tries again; DefaultRetryFor if 0, and not at all if negative.
	RetryFor time.Duration
}

// Client speaks to one dispatcher. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	token    Token
	agent    string
	retryFor time.Duration
	http     *http.Client
	random   func(n time.Duration) time.Duration // in [0, n)
}

// New returns a Client. It fails if the URL is none of a server.
func New(config Config) (*Client, error) {
	base, err := url.Parse(config.URL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, errors.New("the URL must be like http://127.0.0.1:8080") // without it: it may hold a password
	}
	c := &Client{
		base: base.JoinPath("v1", "namespaces"), token: config.Token, agent: config.UserAgent, retryFor: config.RetryFor,
		random: func(n time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(n))) },
		http: &http.Client{
			Transport:     config.Transport,
			Timeout:       config.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes to no other host
		},
	}
	if c.retryFor == 0 {
		c.retryFor = DefaultRetryFor
	}
	if c.http.Timeout == 0 {
		c.http.Timeout = DefaultTimeout
	}
	if c.http.Transport == nil {
		c.http.Transport = NewTransport(config.TLS)
	}
	return c, nil
}

// NewTransport returns the transport of a Client without one: with bounds of its own, and the proxy of the environment. A nil
// config trusts the system's certificate authorities, from TLS 1.2 on.
func NewTransport(config *tls.Config) *http.Transport {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxConnsPerHost:     64,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute, // the dispatcher ends idle connections after 2
	}
}

// CloseIdleConnections closes the transport's connections that are not in use.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// request is what a method asks for, below the namespace.
type request struct {
	method, namespace string
	path              []string
	query             url.Values
	body              []byte // JSON
}

// do makes one attempt, and decodes its answer. It returns the status of a success.
func (c *Client) do(ctx context.Context, asked *request, answer any) (status int, err error) {
	r, err := c.newRequest(ctx, asked)
	if err != nil {
		return 0, err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return 0, unreachable(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, unreachable(ctx, err)
	case response.StatusCode/100 != 2:
		return 0, problemOf(response, text)
	case len(text) > maxAnswer:
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return 0, fmt.Errorf("the answer is not a dispatcher's: %w", err)
	}
	return response.StatusCode, nil
}

func (c *Client) newRequest(ctx context.Context, asked *request) (*http.Request, error) {
	for _, name := range append([]string{asked.namespace}, asked.path...) {
		if !isName(name) {
			return nil, fmt.Errorf("use %.64q in a path: %w", name, ErrInvalidName)
		}
	}
	target := c.base.JoinPath(append([]string{asked.namespace}, asked.path...)...)
	target.RawQuery = asked.query.Encode()
	r, err := http.NewRequestWithContext(ctx, asked.method, target.String(), bytes.NewReader(asked.body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", withoutURL(err))
	}
	if asked.method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.agent != "" {
		r.Header.Set("User-Agent", c.agent)
	}
	if c.token == nil {
		return r, nil
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("get the token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r, nil
}

// isName reports whether a text may stand in a path, as one segment that no proxy changes: "./replay" would be another request.
func isName(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}
