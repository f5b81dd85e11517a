package routing

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
)

// Entry is a compiled subscription as it is written down: plain data with every Secret resolved. It is never logged.
type Entry struct {
	// Identity is the subscription's metadata.uid, or namespace/name where a manifest has none.
	Identity  string `json:"identity"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Generation of the spec that the entry was compiled from, or that was found wanting.
	Generation int64 `json:"generation"`
	// Revision of the endpoint: positive, and another whenever anything changes that an attempt depends on, also a value
	// taken from a Secret. 0 in an entry of an earlier version.
	Revision int64 `json:"revision,omitzero"`
	// Tenant is the namespace's uid, "" where it is not known.
	Tenant string `json:"tenant,omitempty"`
	// Patterns that it matches by; none is covered by another.
	Patterns []event.Pattern `json:"patterns"`
	// Filter is the text of spec.filter, "" without one.
	Filter string `json:"filter,omitempty"`
	// FilterSize is the memory that the compiled filter takes, in bytes.
	FilterSize int `json:"filterSize,omitzero"`
	// SkipFilterErrors is set if an event for which the filter fails is not delivered.
	SkipFilterErrors bool `json:"skipFilterErrors,omitzero"`
	// Schedule is when its events are delivered; nil for at once.
	Schedule *Schedule `json:"schedule,omitempty"`
	// ProgramSize is the memory that the compiled expressions beside the filter take, in bytes.
	ProgramSize int `json:"programSize,omitzero"`
	// Labels are the subscription's, if an expression may read them.
	Labels map[string]string `json:"labels,omitempty"`
	// URL is empty while the entry waits.
	URL string `json:"url,omitempty"`
	// Service are the cluster IPs that deliveries go to, at the port of URL and to nothing else, if spec.serviceRef names a
	// Service; none otherwise.
	Service []netip.Addr `json:"service,omitempty"`
	// Header has canonical keys.
	Header http.Header `json:"header,omitempty"`
	// Keys are the signing keys as the Secrets hold them, the current one first.
	Keys [][]byte `json:"keys,omitempty"`
	// KeySalt goes into the ids of shared keys (SigningKeys). It stands here and nowhere else; nil where nobody shows ids.
	KeySalt []byte `json:"keySalt,omitempty"`
	// CA holds the certificates, in PEM, that the endpoint's own may be signed by beside the system's; "" for the system's
	// alone.
	CA string `json:"ca,omitempty"`
	// TLS is what else is asked of TLS; nil for nothing.
	TLS *TLS `json:"tls,omitempty"`
	// Redact, Format ("" for Standard), Lookup (the text of spec.lookup.url) and Transform say how a request is made, Outcome
	// what its answer means, Auth how it is authenticated, and LookupAuth how the lookup is; nil for by Auth.
	Redact    []string   `json:"redact,omitempty"`
	Format    string     `json:"format,omitempty"`
	Lookup    string     `json:"lookup,omitempty"`
	Transform *Transform `json:"transform,omitempty"`
	Outcome   *Outcome   `json:"outcome,omitempty"`
	Auth      *Auth      `json:"auth,omitempty"`

	LookupAuth *Auth `json:"lookupAuth,omitempty"`
	// Handshake is the origin that the endpoint is asked for consent with, "" if it is not asked.
	Handshake string `json:"handshake,omitempty"`
	// Quota is what the tenant may use of the dispatcher, where that is not what the dispatcher's flags say.
	Quota *Quota `json:"quota,omitempty"`
	// Egress are the address ranges that the tenant's deliveries may reach although they are private or special.
	Egress []EgressRule `json:"egress,omitempty"`
	// Within are lists of hosts: each must have the host of a lookup. They are there if there is a lookup.
	Within []egress.Hosts `json:"within,omitempty"`
	// Timeout bounds one attempt.
	Timeout     time.Duration `json:"timeout"`
	Thin        bool          `json:"thin,omitzero"`
	Retry       Retry         `json:"retry"`
	MaxInFlight int           `json:"maxInFlight"`
	Ordered     bool          `json:"ordered,omitzero"`
	// RequestsPerSecond is 0 without a limit.
	RequestsPerSecond int  `json:"requestsPerSecond,omitzero"`
	Suspended         bool `json:"suspended,omitzero"`
	// Pull is set if the consumer asks for the deliveries. The URL is then egress.Nowhere.
	Pull bool `json:"pull,omitzero"`
	// Waiting is the reason of Accepted=False for which deliveries wait, "" while the subscription is accepted.
	Waiting string `json:"waiting,omitempty"`
	// Room is what the entry took of the table when it was accepted last, in bytes, if it waits: nobody else gets it.
	Room int `json:"room,omitzero"`
	// Source is the file that the manifest stands in, "" if it came from an API server.
	Source string `json:"source,omitempty"`
	// Sources stands for what the entry was compiled from. It is written beside the entries, for the manager alone.
	Sources SourcesDigest `json:"-"`
}

// Quota is what one tenant may use of a dispatcher; 0 is no limit of the tenant's own.
type Quota struct {
	EventsPerSecond   int   `json:"eventsPerSecond,omitzero"`
	EventsBurst       int   `json:"eventsBurst,omitzero"`
	PendingBytes      int64 `json:"pendingBytes,omitzero"`
	PendingDeliveries int64 `json:"pendingDeliveries,omitzero"`
	AttemptsInFlight  int   `json:"attemptsInFlight,omitzero"`

	ScheduledDeliveries int64 `json:"scheduledDeliveries,omitzero"`
}

// EgressRule allows address ranges, on the given ports, or on any that the dispatcher allows if there are none; for the given
// hosts, or for all.
type EgressRule struct {
	Hosts egress.Hosts   `json:"hosts,omitempty"`
	CIDRs []netip.Prefix `json:"cidrs"`
	Ports []uint16       `json:"ports,omitempty"`
}

// Retry is a delivery.RetryPolicy as it is written down; durations are nanoseconds.
type Retry struct {
	Initial     time.Duration `json:"initial"`
	Max         time.Duration `json:"max"`
	MaxAge      time.Duration `json:"maxAge"`
	Factor      int           `json:"factor"`
	MaxAttempts int           `json:"maxAttempts,omitzero"`
}

// Route returns what a dispatcher delivers by. It fails if no Compile could have made the entry.
func (e *Entry) Route() (*Route, error) {
	if e.Identity == "" || e.Namespace == "" || e.Name == "" {
		return nil, errors.New("build a route: the entry names no subscription")
	}
	route := &Route{
		Identity:   e.Identity,
		Namespace:  e.Namespace,
		Name:       e.Name,
		Generation: e.Generation,
		Key:        event.NewSubscriptionKey(e.Identity),
		Endpoint: &engine.Endpoint{
			Tenant: cmp.Or(e.Tenant, e.Namespace), Namespace: e.Namespace,
			Retry: engine.RetryPolicy{
				Initial: e.Retry.Initial, Max: e.Retry.Max, MaxAge: e.Retry.MaxAge,
				Factor: e.Retry.Factor, MaxAttempts: e.Retry.MaxAttempts,
			},
			MaxInFlight: e.MaxInFlight,
			Ordered:     e.Ordered, RequestsPerSecond: e.RequestsPerSecond,
			Suspended:  e.Suspended,
			Pull:       e.Pull,
			Generation: cmp.Or(e.Revision, e.Generation),
		},
	}
	if e.Quota != nil {
		route.Quota, route.Endpoint.TenantInFlight = e.Quota, e.Quota.AttemptsInFlight
	} else {
		route.Endpoint.TenantInFlight = engine.DefaultInFlight
	}
	route.Subscription = route.subscription()
	route.Rules = e.rulesOf()
	err := e.checkBounds()
	if err == nil {
		route.Patterns, err = e.parsePatterns()
	}
	var lookup *egress.Target
	if err == nil && e.Waiting == "" {
		route.Endpoint.Target, err = e.target(e.Auth)
		if err == nil && e.LookupAuth != nil {
			lookup, err = e.target(e.LookupAuth)
		}
	}
	if err == nil {
		route.Endpoint.Recipe, err = e.recipe(lookup)
	}
	if err != nil {
		return nil, fmt.Errorf("build the route of %s/%s: %w", e.Namespace, e.Name, err)
	}
	return route, nil
}

// Origin is the URL's scheme, host and port, all of it that may be shown; "" while the entry waits, and of one that is pulled.
func (e *Entry) Origin() string {
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || e.Pull {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// share replaces texts that many entries have alike by their one copy.
func (e *Entry) share() {
	e.Namespace, e.CA = shared(e.Namespace), shared(e.CA)
	header := make(http.Header, len(e.Header))
	for name, values := range e.Header {
		for i := range values {
			values[i] = shared(values[i])
		}
		header[shared(name)] = values
	}
	if e.Header != nil {
		e.Header = header
	}
	for _, hosts := range e.Within {
		shareAll(hosts)
	}
	for i := range e.Egress {
		shareAll(e.Egress[i].Hosts)
	}
}

func shareAll(texts []string) {
	for i := range texts {
		texts[i] = shared(texts[i])
	}
}

func (e *Entry) checkBounds() error {
	if e.MaxInFlight < 1 || e.RequestsPerSecond < 0 || e.Retry.Initial <= 0 || e.Retry.Max <= 0 || e.Retry.MaxAge <= 0 || e.Retry.Factor < 1 || e.Retry.MaxAttempts < 0 {
		return errors.New("a limit is missing or negative")
	}
	return nil
}

func (e *Entry) parsePatterns() ([]event.Pattern, error) {
	if len(e.Patterns) == 0 {
		return nil, errors.New("no pattern")
	}
	for _, p := range e.Patterns {
		if _, err := event.ParsePattern(string(p)); err != nil {
			return nil, err
		}
	}
	return uncovered(e.Patterns), nil
}

// target is where deliveries go, and how they authenticate; nil if they wait, because a signing key is one that is not accepted any more.
func (e *Entry) target(auth *Auth) (*egress.Target, error) {
	if e.URL == "" || e.Timeout <= 0 || len(e.Keys) == 0 {
		return nil, errors.New("an accepted subscription needs a URL, a timeout and a signing key")
	}
	keys := make(signature.Keys, len(e.Keys))
	for i, text := range e.Keys {
		key, err := signature.ParseKey(text)
		if err != nil { // an earlier version took it: one entry must not keep a whole table from being read
			return nil, nil
		}
		keys[i] = key
	}
	asked, err := e.asked()
	if err != nil {
		return nil, err
	}
	target := &egress.Target{
		TLS: asked,
		URL: e.URL, Header: e.Header, Keys: keys, Timeout: e.Timeout, Reach: e.reach(),
		Authorization: auth.authorization(),
	}
	if e.Handshake != "" {
		target.Handshake = &egress.Handshake{Origin: e.Handshake, Rate: 60 * e.RequestsPerSecond}
	}
	return target, nil
}

// reach is where the entry's deliveries go beside what all may reach; nil for nowhere.
func (e *Entry) reach() *egress.Reach {
	if len(e.Egress) == 0 && len(e.Service) == 0 && len(e.Within) == 0 {
		return nil
	}
	reach := &egress.Reach{Fixed: e.Service, Within: e.Within}
	for _, r := range e.Egress {
		reach.Rules = append(reach.Rules, egress.Rule{Hosts: r.Hosts, Prefixes: r.CIDRs, Ports: r.Ports})
	}
	return reach
}

// uncovered returns the patterns that no other one covers, each once and in order. It returns its argument if that is
// all of them.
func uncovered(patterns []event.Pattern) []event.Pattern {
	covered := func(i int) bool {
		for j, other := range patterns {
			if other == patterns[i] && j < i || other != patterns[i] && covers(other, patterns[i]) {
				return true
			}
		}
		return false
	}
	kept := make([]event.Pattern, 0, len(patterns))
	for i, p := range patterns {
		if !covered(i) {
			kept = append(kept, p)
		}
	}
	if len(kept) == len(patterns) {
		return patterns
	}
	return slices.Clip(kept)
}

// covers reports whether every type that inner matches is matched by outer.
func covers(outer, inner event.Pattern) bool {
	return outer == event.All && inner.Resource() != event.Operational || outer == inner || outer.IsFamily() && inner != event.All && outer.Resource() == inner.Resource()
}
