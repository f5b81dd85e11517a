package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// receiver answers all deliveries: 204, but those of endpoints that flap 500 while they are down.
type receiver struct {
	url      string
	down     atomic.Bool
	answered atomic.Int64
	server   *http.Server
}

func (s *stage) startReceiver(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &receiver{url: "http://" + listener.Addr().String()}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(listener) }() // it ends with Close
	s.cleanup(r.server.Close)
	s.receiver = r
	return nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(request.Body, 1<<20))
	r.answered.Add(1)
	if r.down.Load() && strings.HasPrefix(request.URL.Path, "/"+kindFlap+"/") {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// publisher is for all publishes.
var publisher = &http.Client{Timeout: 30 * time.Second}

// publish posts one event into a namespace, again while the dispatcher says that it is busy.
func (s *stage) publish(ctx context.Context, namespace string) error {
	if err := s.hear(ctx); err != nil {
		return err
	}
	target := "http://" + s.publishURL + "/v1/namespaces/" + namespace + "/events"
	return until(ctx, time.Minute, 100*time.Millisecond, "publish into "+namespace, func() (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader([]byte(`{"type":"patient.created","data":{"id":"1"}}`)))
		if err != nil {
			return false, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := publisher.Do(request)
		if err != nil {
			return false, err
		}
		answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return false, err
		}
		switch response.StatusCode {
		case http.StatusAccepted, http.StatusOK:
			return true, nil
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			return false, nil
		}
		return false, fmt.Errorf("%d %s", response.StatusCode, bytes.TrimSpace(answer))
	})
}
