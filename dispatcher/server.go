package dispatcher

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
)

// server is a listening HTTP server.
type server struct {
	*http.Server
	listener net.Listener
	served   sync.WaitGroup
}

// listen begins to serve handler at address, with the API's certificate if certFile is given.
func (d *dispatcher) listen(ctx context.Context, address string, handler http.Handler, certFile string) (*server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &server{Server: ingest.NewServer(handler, d.Logger.WithName("http")), listener: listener}
	if certFile != "" {
		if s.TLSConfig, err = reloadedCertificate(d.TLSCertFile, d.TLSKeyFile, d.Logger); err != nil {
			_ = listener.Close()
			return nil, err
		}
	}
	s.served.Go(func() { d.report(s.serve()) })
	return s, nil
}

func (s *server) address() string { return s.listener.Addr().String() }

// serve answers until the server is closed.
func (s *server) serve() error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(s.listener, "", "")
	} else {
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
