package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// The bounds and defaults of the WebhookDispatcher's schema.
const (
	minEventBytes, defaultEventBytes, maxEventBytes = 1 << 10, 1 << 20, 8 << 20
	// MaxOutageGrace is the longest outage grace, and the default.
	MaxOutageGrace = 5 * time.Minute
	// MinRetention is the shortest time that finished deliveries are kept.
	MinRetention = time.Hour
	// MaxRetention is the longest.
	MaxRetention = 90 * 24 * time.Hour
	// defaultDelivered and defaultFailed are how long they are kept by default.
	defaultDelivered, defaultFailed = 24 * time.Hour, 30 * 24 * time.Hour
)

// Settings are what a dispatcher works by, and may change while it runs. They are immutable once made.
type Settings struct {
	// Generation of the WebhookDispatcher's spec that they are of; 0 if they are of the command line.
	Generation int64
	// MaxEventBytes bounds one event's JSON: 1 KiB to 8 MiB.
	MaxEventBytes int
	// OutageGrace is how long a token holds while the API server cannot be reached: 0 to MaxOutageGrace.
	OutageGrace time.Duration
	// Delivered and Failed are how long finished deliveries are kept, from an hour on.
	Delivered, Failed time.Duration
	// Quota is what each tenant may use where the routing table says nothing else.
	Quota  routing.Quota
	Egress Egress
	// EventResources are the site's own, added to those that every dispatcher knows.
	EventResources []string
}

// Egress is what the deliveries of every tenant may reach beside public https.
type Egress struct {
	// AllowHTTP allows endpoints without TLS.
	AllowHTTP bool
	// MinTLS is the least version of TLS, such as tls.VersionTLS13; 0 for TLS 1.2.
	MinTLS uint16
	// AllowedCIDRs may be reached although they are private or special; DeniedCIDRs may not be, whatever else holds.
	AllowedCIDRs, DeniedCIDRs []netip.Prefix
	// AllowedPorts are ports below 1024 that are allowed beside 80 and 443.
	AllowedPorts []uint16
}

// Defaults are the settings of a spec that says nothing.
func Defaults() Settings {
	return Settings{MaxEventBytes: defaultEventBytes, OutageGrace: MaxOutageGrace, Delivered: defaultDelivered, Failed: defaultFailed}
}

// Catalog is that of the event types that a dispatcher with these settings accepts. It fails if an event resource is
// not valid.
func (s *Settings) Catalog() (*event.Catalog, error) {
	catalog, err := event.NewCatalog(s.EventResources...)
	if err != nil {
		return nil, fmt.Errorf("event resources: %w", err)
	}
	return catalog, nil
}

// Check returns an error if a dispatcher cannot work by the settings.
func (s *Settings) Check() error {
	switch {
	case s.Generation < 0:
		return errors.New("the generation is negative")
	case s.MaxEventBytes < minEventBytes || s.MaxEventBytes > maxEventBytes:
		return fmt.Errorf("the bound of an event is %d bytes: want %d to %d", s.MaxEventBytes, minEventBytes, maxEventBytes)
	case s.OutageGrace < 0 || s.OutageGrace > MaxOutageGrace:
		return fmt.Errorf("the outage grace is %v: want 0s to %v", s.OutageGrace, MaxOutageGrace)
	case s.Delivered < MinRetention || s.Failed < MinRetention:
		return fmt.Errorf("the retention is %v and %v: want at least %v", s.Delivered, s.Failed, MinRetention)
	}
	q := &s.Quota
	if q.EventsPerSecond < 0 || q.EventsBurst < 0 || q.PendingBytes < 0 || q.PendingDeliveries < 0 || q.ScheduledDeliveries < 0 || q.AttemptsInFlight < 0 {
		return errors.New("a quota is negative")
	}
	invalid := func(p netip.Prefix) bool { return !p.IsValid() }
	if slices.ContainsFunc(s.Egress.AllowedCIDRs, invalid) || slices.ContainsFunc(s.Egress.DeniedCIDRs, invalid) {
		return errors.New("an address range of egress is not one")
	}
	if v := s.Egress.MinTLS; v != 0 && v != tls.VersionTLS12 && v != tls.VersionTLS13 {
		return errors.New("the least version of TLS is not one")
	}
	if slices.Contains(s.Egress.AllowedPorts, 0) {
		return errors.New("port 0 of egress is not one")
	}
	_, err := s.Catalog()
	return err
}
