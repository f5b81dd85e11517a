package ingest

import (
	"bytes"
	"log"
	"net/http"
	"time"

	"github.com/go-logr/logr"
)

// Limits of a connection. A client that is slower than these is dropped; bodies have a least rate beside, see
// UploadLimits.
const (
	readHeaderTimeout = 5 * time.Second  // of the whole header, and of a TLS handshake
	readTimeout       = 60 * time.Second // a request of 8 MiB, over a slow line
	writeTimeout      = 3 * time.Minute  // from the headers read; the store may be slow
	idleTimeout       = 2 * time.Minute  // longer than load balancers keep theirs
	maxHeaderBytes    = 16 << 10
	headerSlop        = 4 << 10 // net/http reads that much more than it is told
)

// NewServer returns a server of handler whose limits keep slow and idle clients from using it up. Its address, its TLS
// configuration and its context are left to be set.
//
// It speaks HTTP/1.1 only. With HTTP/2 a connection carries any number of requests at once, each with headers and buffers
// of its own, and a bound on connections would bound nothing; producers that ask for HTTP/2 agree on HTTP/1.1 by ALPN.
func NewServer(handler http.Handler, logger logr.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes - headerSlop,
		Protocols:         protocols,
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
