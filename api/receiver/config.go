package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
)

// The defaults of Config.
const (
	DefaultMaxBytes      = 1<<20 + 4096 // the dispatcher's default event and its envelope
	DefaultMaxConcurrent = 256
	DefaultReadTimeout   = 10 * time.Second
	DefaultLease         = 5 * time.Minute
	DefaultStoreTimeout  = 2 * time.Second
)

// Scheme is how deliveries are signed (docs/wire.md).
type Scheme int

const (
	// Standard is webhook-signature of Standard Webhooks 1.0: it covers the delivery's id, the time and the body.
	Standard Scheme = iota
	// BodyOnly is X-Clinik-Signature or X-ClinikAPI-Signature: it covers nothing but the body, so a delivery that
	// somebody recorded is accepted again at any time. It is for senders that know no other.
	BodyOnly
)

// Config says how a Receiver works. Secrets and, unless only Middleware or Verify are used, On are required.
type Config struct {
	// Secrets are the keys to verify by, in any order: the shared keys of the subscription's spec.signing, and the public keys
	// (whpk_…) of its pairs, as status.signing has them. During a rotation these are the new one and the old one.
	Secrets []string
	// On maps patterns to handlers. The most specific pattern wins: "patient.created", then "patient.*", then "*".
	// A delivery that no pattern matches is answered with 200.
	On Routes
	// Resources are a site's own, beside the clinical ones that every dispatcher knows: spec.eventResources of the
	// WebhookDispatcher. A pattern of any other resource is an error, because it is a slip of the pen.
	Resources []string
	// Scheme is the signature that is required; Standard unless set. The other one is not looked at.
	Scheme Scheme
	// Tolerance is how far webhook-timestamp may be from the clock, to either side; signature.Tolerance if 0.
	Tolerance time.Duration
	// MaxBytes bounds a body; DefaultMaxBytes if 0.
	MaxBytes int64
	// MaxConcurrent bounds the requests that are read or handled at once, each of which may hold MaxBytes. One more
	// is answered with 503. DefaultMaxConcurrent if 0.
	MaxConcurrent int
	// ReadTimeout bounds how long a body may take to arrive; DefaultReadTimeout if 0.
	ReadTimeout time.Duration
	// Deduplicator remembers what was handled; a Memory of DefaultMemoryEntries if nil.
	Deduplicator Deduplicator
	// Lease is how long a handler may take: then its context ends, and its claim is another attempt's to take.
	// DefaultLease if 0.
	Lease time.Duration
	// StoreTimeout bounds each call of the Deduplicator; DefaultStoreTimeout if 0.
	StoreTimeout time.Duration
	// Observe is called once for each request, after it was answered. If nil, failures are logged by slog.Default,
	// without payload or secret, but with the text of the handler's own errors.
	Observe func(context.Context, Outcome)
	// Now is the clock that timestamps are compared with; time.Now if nil.
	Now func() time.Time
}

// Outcome is what became of a request. What is not known, because the signature is wrong, is zero.
type Outcome struct {
	Status     int
	DeliveryID string
	EventID    string
	Type       event.Type
	Attempt    int
	// Duplicate is set if the delivery was handled before.
	Duplicate bool
	// Handled is set if a handler ran and succeeded.
	Handled bool
	// Err is why Status is not 2xx.
	Err error
	// StoreErr is how the Deduplicator failed, if it did.
	StoreErr error
}

// Receiver answers deliveries. It is an http.Handler, safe for concurrent use. New makes one.
type Receiver struct {
	config Config
	routes routes
	keys   atomic.Pointer[signature.Keys]
	places chan struct{}
}

// New returns a Receiver, or an error that says which part of config is wrong, and shows no secret.
func New(config Config) (*Receiver, error) {
	if err := complete(&config); err != nil {
		return nil, err
	}
	compiled, err := compile(config.On, config.Resources)
	if err != nil {
		return nil, err
	}
	r := &Receiver{config: config, routes: compiled, places: make(chan struct{}, config.MaxConcurrent)}
	if err := r.SetSecrets(config.Secrets...); err != nil {
		return nil, err
	}
	r.config.Secrets = nil
	return r, nil
}

// complete fills in the defaults.
func complete(c *Config) error {
	c.Tolerance = orDefault(c.Tolerance, signature.Tolerance)
	c.MaxBytes = orDefault(c.MaxBytes, DefaultMaxBytes)
	c.MaxConcurrent = orDefault(c.MaxConcurrent, DefaultMaxConcurrent)
	c.ReadTimeout = orDefault(c.ReadTimeout, DefaultReadTimeout)
	c.Lease = orDefault(c.Lease, DefaultLease)
	c.StoreTimeout = orDefault(c.StoreTimeout, DefaultStoreTimeout)
	if c.Tolerance < time.Second || c.MaxBytes < 0 || c.MaxConcurrent < 0 || c.ReadTimeout < 0 || c.Lease < 0 || c.StoreTimeout < 0 {
		return errors.New("a limit is negative, or the tolerance is less than a second")
	}
	if c.Scheme != Standard && c.Scheme != BodyOnly {
		return fmt.Errorf("there is no scheme %d", c.Scheme)
	}
	if c.Deduplicator == nil {
		c.Deduplicator = NewMemory(DefaultMemoryEntries, DefaultMemoryTTL)
	}
	if c.Observe == nil {
		c.Observe = logFailures
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// SetSecrets replaces the keys while requests are answered, for a rotation without a restart. It fails, and the keys stay
// as they are, if there is none or one is not a key (signature.ParseVerificationKey).
func (r *Receiver) SetSecrets(secrets ...string) error {
	keys := make(signature.Keys, 0, len(secrets))
	for i, secret := range secrets {
		key, err := signature.ParseVerificationKey([]byte(secret))
		if err != nil {
			return fmt.Errorf("secret %d of %d: %w", i+1, len(secrets), err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return errors.New("there is no secret to verify signatures with")
	}
	r.keys.Store(&keys)
	return nil
}

// logFailures is the observer that is used if there is no other.
func logFailures(ctx context.Context, o Outcome) {
	logger := slog.Default().With("delivery", o.DeliveryID, "type", string(o.Type), "attempt", o.Attempt, "status", o.Status)
	if o.Err != nil {
		logger.WarnContext(ctx, "delivery not accepted", "error", o.Err)
	}
	if o.StoreErr != nil {
		logger.WarnContext(ctx, "deduplication failed, the delivery may be handled twice", "error", o.StoreErr)
	}
}
