package routing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"
	"unique"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// Policy is what a dispatcher allows its subscriptions.
type Policy struct {
	// Catalog holds the event types that the dispatcher accepts.
	Catalog *event.Catalog
	// AllowHTTP allows endpoints without TLS.
	AllowHTTP bool
	// Bounds are which hosts subscriptions may go to; none if they may go to all.
	Bounds []Bound
}

// Secrets returns the data of the Secret with the given name in the subscription's namespace, and false if there is
// none. An error means that it could not be told.
type Secrets func(name string) (map[string][]byte, bool, error)

// ConfigMaps is the same of ConfigMaps.
type ConfigMaps func(name string) (map[string][]byte, bool, error)

// Sources are where Compile takes values from that do not stand in a spec.
type Sources struct {
	Secrets    Secrets
	ConfigMaps ConfigMaps
	Services   Services // nil where there are none, as in a folder
}

// Rejection is why a subscription is not accepted.
type Rejection struct {
	// Reason of the condition Accepted, one of the constants of package v1alpha1.
	Reason string
	// Message says what to do. It shows no value of a Secret and no URL.
	Message string
}

// Error returns the message.
func (r *Rejection) Error() string { return r.Message }

func reject(reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Compile resolves a subscription into an entry of the routing table. It applies the defaults of the resource's schema
// and checks all that the schema checks, because a manifest in a folder has met no API server. Exactly one result is
// not nil; the error is for a Secret that could not be read just now, and passes.
func Compile(sub *v1alpha1.WebhookSubscription, sources Sources, policy Policy) (*Entry, *Rejection, error) {
	c := &compiler{spec: withDefaults(sub.Spec), namespace: sub.Namespace, sources: sources, policy: policy, entry: &Entry{
		Identity:   Identity(sub),
		Namespace:  sub.Namespace,
		Name:       sub.Name,
		Generation: Generation(sub),
	}}
	steps := []func() error{
		func() error { return checkMetadata(sub) },
		c.checkShape, // before any Secret is read, so that a wrong spec is told first
		c.compilePatterns,
		func() error { return c.compileFormulas(sub.Labels) },
		c.compileFilter,
		c.compileSchedule,
		c.compileRequest,
		c.compileLimits,
		c.compileURL,
		c.compileHeaders,
		c.compileKeys,
		c.compileAuth,
		c.compileHosts,
		c.compileCA,
		c.compileTLS,
		c.fingerprint,
	}
	for _, step := range steps {
		err := step()
		if rejection, ok := errors.AsType[*Rejection](err); ok {
			return nil, rejection, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("compile subscription %s/%s: %w", sub.Namespace, sub.Name, err)
		}
	}
	return c.entry, nil, nil
}

// Hold returns the entry of a subscription that is not accepted for the given reason: it goes on matching by previous,
// the last that was, and its deliveries wait and age. What it took from Secrets is dropped. It returns nil if previous
// is nil: a subscription that was never accepted matches nothing.
func Hold(previous *Entry, generation int64, reason string) *Entry {
	if previous == nil {
		return nil
	}
	held := *previous
	held.Generation = generation
	held.Waiting = reason
	held.Room = previous.Cost()
	held.URL, held.Service, held.Header, held.Keys, held.CA, held.Auth, held.LookupAuth, held.TLS, held.Within = "", nil, nil, nil, "", nil, nil, nil, nil
	held.Sources = SourcesDigest{}
	return &held
}

// Identity is what tells a subscription from every other, past and present: its uid, or namespace/name where a manifest
// has none.
func Identity(sub *v1alpha1.WebhookSubscription) string {
	if sub.UID != "" {
		return string(sub.UID)
	}
	return sub.Namespace + "/" + sub.Name
}

// SecretNames returns the names of the Secrets that a subscription takes values from, each once, sorted.
func SecretNames(sub *v1alpha1.WebhookSubscription) []string {
	var names []string
	for _, ref := range SecretReferences(sub) {
		names = append(names, ref.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// compiler carries one subscription through the steps of Compile.
type compiler struct {
	spec      v1alpha1.WebhookSubscriptionSpec
	namespace string
	sources   Sources
	policy    Policy
	entry     *Entry
}

func (c *compiler) compilePatterns() (err error) {
	c.entry.Patterns, err = c.patterns("spec.events", c.spec.Events)
	return err
}

// patterns reads the patterns of a field.
func (c *compiler) patterns(where string, texts []string) ([]event.Pattern, error) {
	patterns := make([]event.Pattern, 0, len(texts))
	for i, text := range texts {
		pattern, err := event.ParsePattern(text)
		if err != nil {
			return nil, reject(v1alpha1.ReasonInvalidPattern, "%s[%d]: %s is not a pattern: want *, {resource}.*, {resource}.{created|updated|deleted}, or %s.* and its types", where, i, quote(text), event.Operational)
		}
		if err := c.policy.Catalog.Check(pattern); err != nil {
			return nil, reject(v1alpha1.ReasonUnknownResource, "%s[%d]: %v; correct it, or add the resource to spec.eventResources of the WebhookDispatcher", where, i, err)
		}
		patterns = append(patterns, pattern)
	}
	return uncovered(patterns), nil
}

func (c *compiler) compileLimits() error {
	spec := c.spec
	c.entry.Timeout = spec.Timeout.Duration
	c.entry.Thin = spec.Payload.Mode == v1alpha1.PayloadThin
	c.entry.Suspended = *spec.Suspend
	c.entry.Pull = spec.Delivery.Mode == v1alpha1.DeliveryPull
	c.entry.MaxInFlight = int(spec.Delivery.MaxInFlight)
	c.entry.Ordered = spec.Delivery.Ordering == v1alpha1.OrderingByResource
	if limit := spec.Delivery.RateLimit; limit != nil {
		c.entry.RequestsPerSecond = int(limit.RequestsPerSecond)
	}
	c.entry.Retry = Retry{
		Initial: spec.Retry.InitialDelay.Duration,
		Max:     spec.Retry.MaxDelay.Duration,
		MaxAge:  spec.Retry.MaxAge.Duration,
		Factor:  int(spec.Retry.Factor),
	}
	if n := spec.Retry.MaxAttempts; n != nil {
		c.entry.Retry.MaxAttempts = int(*n)
	}
	return nil
}

func (c *compiler) compileURL() error {
	if c.entry.Pull {
		c.entry.URL = egress.Nowhere
		return nil
	}
	text, where := c.spec.URL, "spec.url"
	if ref := c.spec.ServiceRef; ref != noService {
		text, where = serviceURL(ref, c.namespace), serviceField
	}
	if from := c.spec.URLFrom; from != nil {
		where = "spec.urlFrom"
		value, err := c.resolve(where+".secretKeyRef", from.SecretKeyRef)
		if err != nil {
			return err
		}
		text = string(value)
	}
	if err := checkURL(text, where, c.spec.URLFrom != nil, c.policy.AllowHTTP); err != nil {
		return err
	}
	c.entry.URL = text
	return c.compileService()
}

func (c *compiler) compileHeaders() error {
	if len(c.spec.Headers) == 0 {
		return nil
	}
	c.entry.Header = make(http.Header, len(c.spec.Headers))
	size := 0
	for i, header := range c.spec.Headers {
		value, where, check := header.Value, fmt.Sprintf("spec.headers[%d]", i), checkHeaderValue
		if from := header.ValueFrom; from != nil {
			secret, err := c.resolve(where+".valueFrom.secretKeyRef", from.SecretKeyRef)
			if err != nil {
				return err
			}
			value, check = string(secret), checkSecretValue
		}
		if err := check(value, where, header.Name); err != nil {
			return err
		}
		if size += len(header.Name) + len(value); size > maxHeaderBytes {
			return reject(v1alpha1.ReasonInvalidHeader, "spec.headers: the names and values of all headers, those from Secrets included, are more than %d bytes: shorten or remove some", maxHeaderBytes)
		}
		c.entry.Header[shared(http.CanonicalHeaderKey(header.Name))] = []string{shared(value)}
	}
	return nil
}

// compileKeys resolves the keys in the order in which they sign.
func (c *compiler) compileKeys() error {
	for _, ref := range SecretReferences(&v1alpha1.WebhookSubscription{Spec: v1alpha1.WebhookSubscriptionSpec{Signing: c.spec.Signing}}) {
		text, err := c.resolveKey(ref.Where, v1alpha1.SecretKeyReference{Name: ref.Name, Key: ref.Key})
		if err != nil {
			return err
		}
		same := func(other []byte) bool { return bytes.Equal(other, text) }
		if !slices.ContainsFunc(c.entry.Keys, same) { // one key has one signature
			c.entry.Keys = append(c.entry.Keys, text)
		}
	}
	return nil
}

func (c *compiler) resolveKey(where string, ref v1alpha1.SecretKeyReference) ([]byte, error) {
	text, err := c.resolve(where, ref)
	if err != nil {
		return nil, err
	}
	if _, err := signature.ParseKey(text); err != nil {
		return nil, reject(v1alpha1.ReasonSecretKeyInvalid, "key %q of Secret %q is no signing key: %v; correct the Secret, or %s", ref.Key, ref.Name, err, where)
	}
	return text, nil
}

// resolve returns the value that the reference in the field where points to.
func (c *compiler) resolve(where string, ref v1alpha1.SecretKeyReference) ([]byte, error) {
	return c.lookUp(secretKind, c.sources.Secrets, ref.Name, ref.Key, where)
}

// kind is what a value is taken from.
type kind struct{ name, notFound, keyMissing string }

var (
	secretKind    = kind{"Secret", v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretKeyMissing}
	configMapKind = kind{"ConfigMap", v1alpha1.ReasonConfigMapNotFound, v1alpha1.ReasonConfigMapKeyMissing}
)

// lookUp returns what a key of a Secret or ConfigMap holds.
func (c *compiler) lookUp(from kind, source func(string) (map[string][]byte, bool, error), name, key, where string) ([]byte, error) {
	kind := from.name
	data, found, err := source(name)
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", kind, name, err)
	}
	if !found {
		return nil, reject(from.notFound, "%s %q not found in namespace %q: create it, or correct %s", kind, name, c.namespace, where)
	}
	value, found := data[key]
	if !found {
		return nil, reject(from.keyMissing, "%s %q in namespace %q has no key %q: add it, or correct %s", kind, name, c.namespace, key, where)
	}
	return bytes.Clone(value), nil
}

// compileCA takes up the certificates that the endpoint's own may be signed by.
func (c *compiler) compileCA() error {
	const where = "spec.tls."
	switch tls := c.spec.TLS; {
	case tls.CASecretRef != nil:
		text, err := c.resolve(where+"caSecretRef", *tls.CASecretRef)
		return c.trust(secretKind, tls.CASecretRef.Name, tls.CASecretRef.Key, text, err)
	case tls.CAConfigMapRef != nil:
		ref := tls.CAConfigMapRef
		text, err := c.lookUp(configMapKind, c.sources.ConfigMaps, ref.Name, ref.Key, where+"caConfigMapRef")
		return c.trust(configMapKind, ref.Name, ref.Key, text, err)
	}
	return nil
}

// trust takes up what was read.
func (c *compiler) trust(from kind, name, key string, text []byte, err error) error {
	if err != nil {
		return err
	}
	if err := checkCertificates(text); err != nil {
		return reject(v1alpha1.ReasonCertificatesInvalid, "key %q of %s %q: %v", key, from.name, name, err)
	}
	c.entry.CA = shared(string(text))
	return nil
}

// fingerprint sets the revision, which holds for as long as an attempt would be the same.
func (c *compiler) fingerprint() error {
	e := c.entry
	text, err := json.Marshal(struct {
		Generation int64
		URL        string
		Service    []netip.Addr `json:",omitempty"`
		Header     http.Header
		Keys       [][]byte
		CA         string
		TLS        *TLS              `json:",omitempty"`
		Auth       *Auth             `json:",omitempty"`
		LookupAuth *Auth             `json:",omitempty"`
		Labels     map[string]string `json:",omitempty"`
	}{e.Generation, e.URL, e.Service, e.Header, e.Keys, e.CA, e.TLS, e.Auth, e.LookupAuth, e.requestLabels()}) // a map's keys are sorted
	if err != nil {
		return fmt.Errorf("fingerprint what an attempt depends on: %w", err)
	}
	e.Revision = positiveHash(text)
	return nil
}

// requestLabels are the labels, if what makes a request may read them.
func (e *Entry) requestLabels() map[string]string {
	if e.Transform == nil && e.Lookup == "" && (e.Schedule == nil || e.Schedule.Recheck == "") {
		return nil
	}
	return e.Labels
}

// shared returns the one copy of a text that all who hold it share: one Secret's token may be that of every subscription.
func shared(text string) string { return unique.Make(text).Value() }

// quote shows the beginning of what someone wrote.
func quote(text string) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%.*q…", most, text)
	}
	return fmt.Sprintf("%q", text)
}

// inRange reports whether least ≤ d ≤ most.
func inRange(d, least, most time.Duration) bool { return least <= d && d <= most }
