package postgres

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Retention is how long finished deliveries are kept, counted from when they finished.
type Retention struct {
	Delivered time.Duration // default 24 h
	Failed    time.Duration // failed and cancelled ones; default 720 h
}

// Options are what a Store needs. URL is required.
type Options struct {
	// URL is a PostgreSQL connection string, as libpq reads it; it may name several hosts. Beside libpq's parameters it
	// may set pool_max_conns (default 16) and default_query_exec_mode: without, statements are prepared, until a pooler
	// turns out to be in between that does not know prepared statements.
	URL string
	// Schema that the tables are in; it is created if there is none. Default "eventflow".
	Schema string
	// Identity names this process among the members, beside a random part; default the host's name.
	Identity string
	Logger   logr.Logger
	// Registerer gets the store's metrics; nil for none.
	Registerer prometheus.Registerer
	Retention  Retention
	// ConnectWait is how long Open waits for a database that cannot be reached, or not be written to.
	ConnectWait time.Duration
	// Timeout bounds a transaction, and how long an Append waits for its turn. Default 5 s.
	Timeout time.Duration
	// LeaseDuration is how long after it was last heard of a member counts as alive. Default 7 s, at least 2 s.
	LeaseDuration time.Duration
	// Now is the time that the store goes by; nil means the database's clock. Leases always go by the database's.
	Now func() time.Time
}

const (
	defaultSchema   = "eventflow"
	defaultMaxConns = 16
	// connectTimeout bounds the making of a connection to one host, where the URL does not.
	connectTimeout = 3 * time.Second
)

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (o Options) withDefaults() (Options, error) {
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	if !schemaName.MatchString(o.Schema) {
		return o, fmt.Errorf("schema %q: want lower-case letters, digits and underscores, not beginning with a digit", o.Schema)
	}
	if o.Identity == "" {
		o.Identity, _ = os.Hostname()
	}
	unique := make([]byte, 6)
	_, _ = rand.Read(unique) // never fails: crypto/rand ends the process instead
	o.Identity += "/" + hex.EncodeToString(unique)
	o.Retention.Delivered = defaultTo(o.Retention.Delivered, 24*time.Hour)
	o.Retention.Failed = defaultTo(o.Retention.Failed, 720*time.Hour)
	o.Timeout = defaultTo(o.Timeout, 5*time.Second)
	o.LeaseDuration = max(defaultTo(o.LeaseDuration, 7*time.Second), 2*time.Second)
	return o, nil
}

func defaultTo(value, otherwise time.Duration) time.Duration {
	if value == 0 {
		return otherwise
	}
	return value
}

// These say no more: a connection string holds a password.
var (
	errURL  = errors.New("it is not a PostgreSQL connection string (postgres://USER:PASSWORD@HOST/DATABASE), or its sslrootcert holds no certificate")
	errFile = errors.New("a file that the connection string or a PG… variable names, such as sslrootcert, cannot be read")
)

// urlError says what keeps a connection string from being used.
func urlError(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		return errFile
	}
	return errURL
}

// poolConfig is how connections are made.
func (o *Options) poolConfig() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, urlError(err)
	}
	settings, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, urlError(err)
	}
	if _, ok := settings.RuntimeParams["pool_max_conns"]; !ok { // the pool's ParseConfig took it out
		config.MaxConns = defaultMaxConns
	}
	if config.ConnConfig.ValidateConnect == nil {
		// Never to a standby, also where a name leads to whichever server is the primary.
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "eventflow"
	}
	config.ConnConfig.DialFunc = o.dialer().DialContext
	config.PingTimeout = 2 * time.Second
	config.MaxConnLifetime = 30 * time.Minute
	config.MaxConnLifetimeJitter = 5 * time.Minute
	config.MaxConnIdleTime = 5 * time.Minute
	return config, nil
}

// dialer makes connections that end by themselves when the other side is gone without a word.
func (o *Options) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control:         boundUnacknowledged(o.Timeout),
	}
}
