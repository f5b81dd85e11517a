package dispatcher

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/spelling"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/audit"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// Options are what a dispatcher is told on its command line.
type Options struct {
	// Routes is "kubernetes", or a folder of manifests.
	Routes string
	// Store is "pebble:DIR", or a PostgreSQL connection string. It is never logged.
	Store string
	// StateDir keeps the last good routing table; "" means beside the embedded store, or not at all without one.
	StateDir string
	// Listen and OpsListen are the addresses of the API and of health and metrics.
	Listen, OpsListen string
	// IngestAuth is "kubernetes" or "none".
	IngestAuth string
	// IngestIssuers, if there are any, are those of all JSON Web Tokens that the cluster takes.
	IngestIssuers []string
	// IngestHosts are host names by which the API may be named without authentication, beside those that no web page has.
	IngestHosts []string
	// OutageGrace is how long a token and its accesses hold while the API server cannot be reached; 0 to 5 min.
	OutageGrace time.Duration
	// TLSCertFile and TLSKeyFile hold the API's certificate; it is read again when it changes. Without, the API speaks
	// plain HTTP.
	TLSCertFile, TLSKeyFile string
	// PlainListen is an address at which the API speaks plain HTTP beside TLS; "" for none.
	PlainListen string
	// IngestAudiences, if there are any, are those of which a token has to be meant for one.
	IngestAudiences []string
	// IngestClientCAFile holds the authorities of certificates by which producers may say who they are; "" for none. It is read
	// again when it changes.
	IngestClientCAFile string
	// DeliveriesListen is the address of the deliveries API, which kube-apiserver passes requests on to; "" for none. The files
	// hold its certificate, which is read again when it changes.
	DeliveriesListen, DeliveriesTLSCertFile, DeliveriesTLSKeyFile string
	// EgressAllowHTTP, EgressAllowCIDRs and EgressDenyCIDRs are what deliveries may reach beside public https.
	EgressAllowHTTP bool
	// EgressMinTLSVersion is the least version of TLS, VersionTLS12 or VersionTLS13.
	EgressMinTLSVersion string
	// EgressProxy is the URL of a proxy that takes CONNECT; "" for none. EgressProxyConnect is Address or Host: what the proxy is
	// asked for. EgressProxySecrets is a folder with username, password and ca.crt, each of which may be missing; "" for none.
	EgressProxy, EgressProxyConnect, EgressProxySecrets string
	EgressAllowCIDRs, EgressDenyCIDRs                   []string
	// EventResources are a site's own, added to the clinical ones.
	EventResources []string
	// MaxEventBytes bounds one event's JSON.
	MaxEventBytes int
	// MaxInFlight bounds the attempts under way over all subscriptions; 0 means what memory and descriptors allow.
	MaxInFlight int
	// MaxConnections bounds the open connections of the API's clients, MaxMemory the bytes of events that are being
	// accepted or delivered; 0 means what memory and descriptors allow.
	MaxConnections int
	MaxMemory      int64
	// Quota is what each tenant may use where the routing table says nothing else; 0 is no limit.
	Quota routing.Quota
	// EgressAllowPorts are ports below 1024 that deliveries may reach beside 80 and 443.
	EgressAllowPorts []uint
	// RetentionDelivered and RetentionFailed are how long finished deliveries are kept.
	RetentionDelivered, RetentionFailed time.Duration
	// Name and Namespace are those of the WebhookDispatcher that this process is of, with Routes "kubernetes".
	Name, Namespace string
	// Kubeconfig is a file; "" means that of the environment or of the pod.
	Kubeconfig string
	// DrainDelay is how long a stopping dispatcher accepts events while its clients and Services learn that it stops.
	DrainDelay time.Duration

	// EncryptionKeys is a folder of key-encryption keys; "" encrypts nothing. EncryptionSeeds is the folder of what they wrap,
	// or "kubernetes"; "" is seeds within EncryptionKeys.
	EncryptionKeys, EncryptionSeeds string

	// AuditLevel is None, Writes, Reads or All, and AuditFile is where the trail is appended; "-" is standard output.
	AuditLevel, AuditFile string

	// Settings is "kubernetes" if the settings that may change while the dispatcher runs come from its Secret in the cluster,
	// in place of the options that say the same; "" if they are those options.
	Settings string
	// ProgrammedByRevision is set by managers that conclude from one report, the revision of the routing table that every pod works
	// by, which subscriptions are programmed. For those of earlier versions that is said at each subscription.
	ProgrammedByRevision bool
	// Version is sent as the User-Agent's.
	Version string
	Logger  logr.Logger
	// Around is what the dispatcher has around it; the zero value is this machine.
	Around Surroundings
	// Started is told the addresses that are listened on, once /readyz is 200; nil for nobody. Ports may be 0.
	Started func(api, ops string)
}

// routesKubernetes and authKubernetes, authNone are words of the command line.
const (
	routesKubernetes = "kubernetes"
	authKubernetes   = "kubernetes"
	authNone         = "none"
	// settingsKubernetes is the same word for Settings.
	settingsKubernetes = "kubernetes"
	storePebble        = "pebble:"
)

// storePostgres are how a PostgreSQL connection string begins.
var storePostgres = []string{"postgres://", "postgresql://"}

// AddFlags binds the options to flags, and sets their defaults.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Routes, "routes", "", "where subscriptions come from: kubernetes, or a folder of WebhookSubscription and Secret manifests (required)")
	flags.StringVar(&o.Store, "store", "", "where events are kept: pebble:DIR, or postgres://USER:PASSWORD@HOST/DATABASE, which is better given as EVENTFLOW_STORE (required)")
	flags.StringVar(&o.Settings, "settings", "", "kubernetes follows the settings that the manager writes for the dispatcher, in place of the flags for egress (but not its proxy), events, quotas, retention and the outage grace")
	flags.BoolVar(&o.ProgrammedByRevision, "programmed-by-revision", false, "report once by which revision of the routing table every pod works, for a manager that concludes from that which subscriptions are programmed; it sets EVENTFLOW_PROGRAMMED_BY_REVISION")
	flags.StringVar(&o.StateDir, "state-dir", "", "folder that keeps the last good routing table; without, beside the embedded store")
	flags.StringVar(&o.Listen, "listen", ":8080", "address of the publish API")
	flags.StringVar(&o.OpsListen, "ops-listen", ":8081", "address of /healthz, /readyz and /metrics")
	flags.StringVar(&o.IngestAuth, "ingest-auth", authKubernetes, "who may publish: kubernetes (service account tokens, by RBAC) or none (everyone who reaches the address)")
	flags.StringSliceVar(&o.IngestIssuers, "ingest-issuer", nil, "issuer of JSON Web Tokens that the cluster takes; those of others are then refused without asking; may be repeated")
	flags.StringSliceVar(&o.IngestAudiences, "ingest-audience", nil, "audience of which a token has to be meant for one; without, it is the API server itself; may be repeated")
	flags.StringVar(&o.IngestClientCAFile, "ingest-client-ca-file", "", "authorities of client certificates, PEM, by which producers may say who they are in place of a token; read again when it changes")
	flags.StringSliceVar(&o.IngestHosts, "ingest-host", nil, "host name by which clients may name the publish API with --ingest-auth=none, beside IP addresses and names of Services; may be repeated")
	flags.DurationVar(&o.OutageGrace, "ingest-outage-grace", ingest.MaxOutageGrace, "how long the API server's last yes to a token holds while it cannot be reached: 0s to 5m")
	flags.StringVar(&o.TLSCertFile, "tls-cert-file", "", "certificate of the publish API, PEM; read again when it changes")
	flags.StringVar(&o.TLSKeyFile, "tls-key-file", "", "key of that certificate, PEM")
	flags.StringVar(&o.PlainListen, "plain-listen", "", "address at which the publish API speaks plain HTTP beside TLS, for producers that have no TLS yet; without, there is none")
	flags.StringVar(&o.DeliveriesListen, "deliveries-listen", "", "address of the deliveries API, for an APIService of the cluster; without, there is none")
	flags.StringVar(&o.DeliveriesTLSCertFile, "deliveries-tls-cert-file", "", "certificate of the deliveries API, PEM; read again when it changes")
	flags.StringVar(&o.DeliveriesTLSKeyFile, "deliveries-tls-key-file", "", "key of that certificate, PEM")
	flags.BoolVar(&o.EgressAllowHTTP, "egress-allow-http", false, "allow endpoints without TLS")
	flags.StringVar(&o.EgressMinTLSVersion, "egress-min-tls-version", string(v1alpha1.TLS12), "least version of TLS towards endpoints: VersionTLS12 or VersionTLS13")
	flags.StringSliceVar(&o.EgressAllowCIDRs, "egress-allow-cidr", nil, "address range that deliveries may reach although it is private or special; may be repeated")
	flags.StringSliceVar(&o.EgressDenyCIDRs, "egress-deny-cidr", nil, "address range that deliveries may not reach whatever allows it; may be repeated")
	flags.StringVar(&o.EgressProxy, "egress-proxy", "", "proxy that takes CONNECT, such as http://proxy.example.com:3128, or https://, which all connections to endpoints go through; without, there is none")
	flags.StringVar(&o.EgressProxyConnect, "egress-proxy-connect", string(v1alpha1.ConnectAddress), "what the proxy is asked for: Address (one that was looked up and judged) or Host (which the proxy looks up anew)")
	flags.StringVar(&o.EgressProxySecrets, "egress-proxy-secrets", "", "folder with username and password for the proxy, and ca.crt that its certificate is verified by, such as a mounted Secret; read again when it changes")
	flags.StringSliceVar(&o.EventResources, "event-resource", nil, "a resource of the site's own, beside the clinical ones; may be repeated")
	flags.IntVar(&o.MaxEventBytes, "max-event-bytes", 1<<20, "bound on one event's JSON")
	o.addLimits(flags)
	flags.StringVar(&o.EncryptionKeys, "encryption-keys", "", "folder of key-encryption keys, such as a mounted Secret: the file current names the key that encrypts, and each other file is a key; without, nothing is encrypted")
	flags.StringVar(&o.EncryptionSeeds, "encryption-seeds", "", "where a wrapped key for each namespace is kept: kubernetes (Secrets that the manager makes), or a folder that is not on the volume of the store; without, the folder seeds within that of --encryption-keys")
	flags.StringVar(&o.AuditLevel, "audit-level", "None", "who used the API is recorded: None, Writes (replays and cancellations), Reads (and who listed and read deliveries) or All (and who published)")
	flags.StringVar(&o.AuditFile, "audit-file", "-", "file that the audit trail is appended to; - is standard output")
	flags.DurationVar(&o.RetentionDelivered, "retention-delivered", 24*time.Hour, "how long a delivered delivery is kept")
	flags.DurationVar(&o.RetentionFailed, "retention-failed", 720*time.Hour, "how long a failed delivery is kept")
	flags.StringVar(&o.Name, "dispatcher-name", "default", "name of the WebhookDispatcher that this process is of")
	flags.StringVar(&o.Namespace, "dispatcher-namespace", "eventflow-system", "namespace of the WebhookDispatcher that this process is of")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG or the pod's service account")
	flags.DurationVar(&o.DrainDelay, "drain-delay", 5*time.Second, "how long to accept events after the signal to stop, so that clients can leave")
}

// addLimits binds what bounds tenants, and what bounds the process.
func (o *Options) addLimits(flags *pflag.FlagSet) {
	flags.IntVar(&o.MaxInFlight, "max-in-flight", 0, "bound on the attempts under way over all subscriptions; 0 derives it from memory and file descriptors")
	flags.IntVar(&o.MaxConnections, "max-connections", 0, "bound on the open connections of the publish API's clients; 0 derives it from memory and file descriptors")
	flags.Int64Var(&o.MaxMemory, "max-memory", 0, "bound on the bytes of events that are being accepted or delivered; 0 derives it from the container's memory")
	flags.IntVar(&o.Quota.EventsPerSecond, "quota-events-per-second", 0, "events that each tenant may publish in a second; 0 is no limit")
	flags.IntVar(&o.Quota.EventsBurst, "quota-events-burst", 0, "events that each tenant may publish at once after a pause; 0 is what it may in a second")
	flags.Int64Var(&o.Quota.PendingBytes, "quota-pending-bytes", 0, "bytes of events that each tenant may have waiting for delivery; 0 is no limit")
	flags.Int64Var(&o.Quota.PendingDeliveries, "quota-pending-deliveries", 0, "deliveries that each tenant may have waiting; 0 is no limit")
	flags.Int64Var(&o.Quota.ScheduledDeliveries, "quota-scheduled-deliveries", 0, "deliveries that each tenant may have planned for later; 0 is no limit")
	flags.IntVar(&o.Quota.AttemptsInFlight, "quota-attempts-in-flight", 0, "attempts that each tenant may have under way; 0 is no limit")
	flags.UintSliceVar(&o.EgressAllowPorts, "egress-allow-port", nil, "port below 1024 that deliveries may reach beside 80 and 443; may be repeated")
}

// checkLimits names the flag to mend.
func (o *Options) checkLimits() error {
	for flag, value := range map[string]int64{
		"max-in-flight":              int64(o.MaxInFlight),
		"max-connections":            int64(o.MaxConnections),
		"max-memory":                 o.MaxMemory,
		"quota-events-per-second":    int64(o.Quota.EventsPerSecond),
		"quota-events-burst":         int64(o.Quota.EventsBurst),
		"quota-pending-bytes":        o.Quota.PendingBytes,
		"quota-pending-deliveries":   o.Quota.PendingDeliveries,
		"quota-scheduled-deliveries": o.Quota.ScheduledDeliveries,
		"quota-attempts-in-flight":   int64(o.Quota.AttemptsInFlight),
	} {
		if value < 0 {
			return fmt.Errorf("--%s=%d: want 0 or more", flag, value)
		}
	}
	for _, port := range o.EgressAllowPorts {
		if port < 1 || port > 65535 {
			return fmt.Errorf("--egress-allow-port=%d: want 1 to 65535", port)
		}
	}
	return nil
}

// understood are options that were understood.
type understood struct {
	start       *inForce // the settings to start with
	auditLevel  audit.Level
	pebbleDir   string // or
	postgresURL string
}

// check returns what the options mean, or an error that names the flag to mend.
func (o *Options) check() (understood, error) {
	var s understood
	if odd := spelling.Odd([]byte(o.Store)); odd != "" {
		return s, fmt.Errorf("--store has %s: write it without, or as in a URL (%%C2%%A0) if a password has it", odd)
	}
	switch dir, found := strings.CutPrefix(o.Store, storePebble); {
	case found && dir != "":
		s.pebbleDir = dir
	case slices.ContainsFunc(storePostgres, func(prefix string) bool { return strings.HasPrefix(o.Store, prefix) }):
		s.postgresURL = o.Store
	default: // whatever it is, it may hold a password
		return s, errors.New("--store is missing or unknown: want pebble:DIR, or postgres://USER:PASSWORD@HOST/DATABASE")
	}
	if o.Routes == "" {
		return s, errors.New("--routes is missing: want kubernetes, or a folder of manifests")
	}
	if o.Routes != routesKubernetes {
		if info, err := os.Stat(o.Routes); err != nil || !info.IsDir() {
			return s, fmt.Errorf("--routes=%q: want kubernetes, or an existing folder of manifests", o.Routes)
		}
	}
	if o.IngestAuth != authKubernetes && o.IngestAuth != authNone {
		return s, fmt.Errorf("--ingest-auth=%q: want kubernetes or none", o.IngestAuth)
	}
	if err := o.checkHosts(); err != nil {
		return s, err
	}
	if o.Settings != "" && (o.Settings != settingsKubernetes || o.Routes != routesKubernetes) {
		return s, fmt.Errorf("--settings=%q: want kubernetes, with --routes=kubernetes, or nothing", o.Settings)
	}
	for _, check := range []func() error{o.checkTLS, o.checkProxy, o.checkDeliveries, o.checkLimits, func() error { return o.checkEncryption(s.pebbleDir) }} {
		if err := check(); err != nil {
			return s, err
		}
	}
	var err error
	if s.auditLevel, err = audit.ParseLevel(cmp.Or(o.AuditLevel, "None")); err != nil {
		return s, fmt.Errorf("--audit-level: %w", err)
	}
	s.start, err = o.settings()
	return s, err
}

// checkTLS names the flag to mend.
func (o *Options) checkTLS() error {
	switch {
	case (o.TLSCertFile == "") != (o.TLSKeyFile == ""):
		return errors.New("--tls-cert-file and --tls-key-file go together")
	case o.TLSCertFile == "" && o.PlainListen != "":
		return errors.New("--plain-listen is beside TLS: it needs --tls-cert-file and --tls-key-file")
	case o.TLSCertFile == "" && o.IngestClientCAFile != "":
		return errors.New("--ingest-client-ca-file needs --tls-cert-file and --tls-key-file")
	case o.IngestAuth != authKubernetes && o.IngestClientCAFile != "":
		return fmt.Errorf("--ingest-client-ca-file needs --ingest-auth=%s", authKubernetes)
	case o.IngestAuth != authKubernetes && len(o.IngestAudiences) > 0:
		return fmt.Errorf("--ingest-audience needs --ingest-auth=%s", authKubernetes)
	}
	return nil
}

// settings are the settings that the flags give, or an error that names the flag to mend.
func (o *Options) settings() (*inForce, error) {
	if o.OutageGrace < 0 || o.OutageGrace > settings.MaxOutageGrace {
		return nil, fmt.Errorf("--ingest-outage-grace=%v: want 0s to %v", o.OutageGrace, settings.MaxOutageGrace)
	}
	if o.RetentionDelivered < settings.MinRetention || o.RetentionFailed < settings.MinRetention {
		return nil, errors.New("--retention-delivered and --retention-failed: want at least 1h")
	}
	least := v1alpha1.TLSVersion(o.EgressMinTLSVersion)
	if least != "" && least.Number() == 0 {
		return nil, fmt.Errorf("--egress-min-tls-version=%s: want %s or %s", least, v1alpha1.TLS12, v1alpha1.TLS13)
	}
	s := &inForce{Settings: settings.Settings{
		MaxEventBytes: cmp.Or(o.MaxEventBytes, settings.Defaults().MaxEventBytes), OutageGrace: o.OutageGrace, Delivered: o.RetentionDelivered, Failed: o.RetentionFailed,
		Quota: o.Quota, EventResources: o.EventResources, Egress: settings.Egress{AllowHTTP: o.EgressAllowHTTP, MinTLS: least.Number()},
	}}
	for _, port := range o.EgressAllowPorts {
		s.Egress.AllowedPorts = append(s.Egress.AllowedPorts, uint16(port))
	}
	var err error
	if s.catalog, err = event.NewCatalog(o.EventResources...); err != nil {
		return nil, fmt.Errorf("--event-resource: %w", err)
	}
	if s.Egress.AllowedCIDRs, err = prefixes("egress-allow-cidr", o.EgressAllowCIDRs); err != nil {
		return nil, err
	}
	if s.Egress.DeniedCIDRs, err = prefixes("egress-deny-cidr", o.EgressDenyCIDRs); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil { // the other flags were checked above
		return nil, fmt.Errorf("--max-event-bytes: %w", err)
	}
	return s, nil
}

func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--%s=%q: want an address range such as 10.96.0.0/12", flag, text)
		}
		all = append(all, prefix)
	}
	return all, nil
}
