package ingest

import (
	"bytes"
	"log"
	"net/http"
	"time"

	"github.com/go-logr/logr"
)

// Limits of a connection. A client that is slower than these is dropped; together with the bound on memory in flight
// they keep slow clients from holding the dispatcher up.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second // a request of 8 MiB, over a slow line
	writeTimeout      = 3 * time.Minute  // from the headers read; the store may be slow
	idleTimeout       = 2 * time.Minute  // longer than load balancers keep theirs
	maxHeaderBytes    = 64 << 10
)

// NewServer returns a server of handler whose limits keep slow and idle clients from using it up. Its address, its TLS
// configuration and its context are left to be set.
func NewServer(handler http.Handler, logger logr.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(serverLog{logger}, "", 0),
	}
}

// serverLog makes one entry of each line that net/http logs: of what clients do wrong where much is logged, of a panic
// always.
type serverLog struct{ logger logr.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte("http: panic")) {
		l.logger.Error(nil, "A request made the dispatcher panic", "stack", string(line))
	} else {
		l.logger.V(1).Info("A connection failed", "reason", string(line))
	}
	return len(line), nil
}
