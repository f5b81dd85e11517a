// Package profile lets a process serve profiles of itself (net/http/pprof) to its own machine or pod.
//
// It is off without an address, and the address has to be a loopback one: profiles cost what they measure, and whoever reads
// metrics need not be able to slow a dispatcher down. In a cluster, kubectl port-forward reaches it, with the right that
// needs. The command line, which may hold the database's password, is not served.
package profile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"golang.org/x/net/netutil"
)

const (
	readTimeout    = 10 * time.Second
	maxConnections = 4
)

// Options say where profiles are served.
type Options struct{ Address string }

// AddFlags binds the options to flags.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Address, "pprof-listen", "", "loopback address of /debug/pprof, such as 127.0.0.1:6060, for go tool pprof; without, no profile is served")
}

// Start begins to serve, and returns what ends that. It fails if the address is not a loopback one, or in use.
func (o Options) Start(ctx context.Context, logger logr.Logger) (stop func(), err error) {
	if o.Address == "" {
		return func() {}, nil
	}
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("--pprof-listen=%q: want a loopback address and a port, such as 127.0.0.1:6060", o.Address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("--pprof-listen=%q is no loopback address: want 127.0.0.1 or [::1] and a port; kubectl port-forward reaches it", o.Address)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("--pprof-listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadTimeout: readTimeout, IdleTimeout: readTimeout}
	logger.Info("Profiles are served", "pprof", listener.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(netutil.LimitListener(listener, maxConnections)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			logger.Error(err, "Profiles are not served any more")
		}
	})
	return func() {
		_ = server.Close()
		serving.Wait()
	}, nil
}
