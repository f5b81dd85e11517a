package dispatcher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/kube"
	"github.com/clinikapi/eventflow/dispatcher/listener"
)

// newAuthorizer returns what asks the API server about tokens. Its client has no rate limiter: what waits there would wait
// for all that this process asks about, and could not be told from an API server that does not answer.
func (d *dispatcher) newAuthorizer() (*ingest.Kubernetes, error) {
	config, err := d.clusterConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	clients, err := kube.New(config)
	if err != nil {
		return nil, err
	}
	return ingest.NewKubernetes(clients.Reviews, ingest.KubernetesOptions{
		Issuers: d.IngestIssuers, Audiences: d.IngestAudiences, CurrentGrace: d.outageGrace, Registerer: d.registry,
	})
}

// server is a listening HTTP server.
type server struct {
	*http.Server
	listener net.Listener
	plain    net.Addr // of plain HTTP beside TLS; nil for none
	served   sync.WaitGroup
}

// The bounds of the listener of health and metrics, which has connections and descriptors of its own.
const (
	opsConnections      = 64
	opsSpareDescriptors = 4
)

// listenAPI begins to serve the API.
func (d *dispatcher) listenAPI(ctx context.Context) (*server, error) {
	bounds := listener.Options{Name: "api", Connections: d.limits.Connections, Judged: true, Registerer: d.registry}
	return d.listen(ctx, d.Listen, d.api, bounds, certificateFiles{cert: d.TLSCertFile, key: d.TLSKeyFile, askClients: d.IngestClientCAFile != "", plain: d.PlainListen})
}

// listenOps begins to serve health and metrics.
func (d *dispatcher) listenOps(ctx context.Context) (*server, error) {
	bounds := listener.Options{
		Name: "ops", Connections: opsConnections, SpareDescriptors: opsSpareDescriptors, Registerer: d.registry,
	}
	return d.listen(ctx, d.OpsListen, http.HandlerFunc(d.serveOps), bounds, certificateFiles{})
}

// certificateFiles are a server's certificate; without, it speaks plain HTTP.
type certificateFiles struct {
	cert, key string
	// askClients asks clients for a certificate, and leaves it to the handler to verify it.
	askClients bool
	// plain is an address at which the server speaks plain HTTP beside TLS; "" for none.
	plain string
}

// listen begins to serve handler at address.
func (d *dispatcher) listen(ctx context.Context, address string, handler http.Handler, bounds listener.Options, files certificateFiles) (*server, error) {
	inner, err := d.Around.listen(ctx, address)
	if err != nil {
		return nil, err
	}
	var plain net.Addr
	if files.plain != "" {
		other, err := d.Around.listen(ctx, files.plain)
		if err != nil {
			_ = inner.Close()
			return nil, fmt.Errorf("--plain-listen: %w", err)
		}
		plain, inner = other.Addr(), newBothWays(inner, other)
	}
	bounded, err := listener.New(inner, bounds)
	if err != nil {
		_ = inner.Close()
		return nil, err
	}
	s := &server{Server: ingest.NewServer(handler, d.Logger.WithName("http")), listener: bounded, plain: plain}
	bounded.Bind(s.Server)
	if files.cert != "" {
		if s.TLSConfig, err = reloadedCertificate(files.cert, files.key, d.Logger, d.showExpiry(bounds.Name)); err != nil {
			_ = bounded.Close()
			return nil, err
		}
		if files.askClients {
			s.TLSConfig.ClientAuth = tls.RequestClientCert
		}
	}
	s.served.Go(func() { d.report(s.serve()) })
	return s, nil
}

// showExpiry registers when the certificate of a listener ends.
func (d *dispatcher) showExpiry(name string) func(func() float64) {
	return func(expiry func() float64) {
		d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eventflow_certificate_expiry_timestamp_seconds", Help: "When the certificate that a listener serves ends, in Unix time.",
			ConstLabels: prometheus.Labels{"listener": name},
		}, expiry))
	}
}

func (s *server) address() string { return s.listener.Addr().String() }

// serve answers until the server is closed.
func (s *server) serve() error {
	var err error
	switch {
	case s.plain != nil:
		config := s.TLSConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		err = s.Serve(&securedButPlain{Listener: s.listener, config: config, plain: s.plain})
	case s.TLSConfig != nil:
		err = s.ServeTLS(s.listener, "", "")
	default:
		err = s.Serve(s.listener)
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *server) close() {
	_ = s.listener.Close()
	_ = s.Close()
	s.served.Wait()
}
