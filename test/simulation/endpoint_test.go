package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

// endpoint is where the deliveries of a subscription go, whichever life of it.
type endpoint struct {
	world       *world
	tenant, sub int
	server      *http.Server

	mu     sync.Mutex
	mood   string
	until  time.Time
	change chan struct{} // closed when the mood changes
	asked  uint64
}

func (w *world) newEndpoint(tenant, sub int) (*endpoint, error) {
	e := &endpoint{world: w, tenant: tenant, sub: sub, change: make(chan struct{})}
	l, err := w.network.listen("endpoints", endpointAddress(tenant, sub))
	if err != nil {
		return nil, err
	}
	e.server = &http.Server{
		Handler: e, ReadHeaderTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &arrivals{conn: c.(*memConn)})
		},
	}
	w.serving.Go(func() { _ = e.server.Serve(l) })
	return e, nil
}

type connKey struct{}

// arrivals counts the requests of a connection.
type arrivals struct {
	conn  *memConn
	count int
}

// feel sets the mood, for a while.
func (e *endpoint) feel(mood string, lasts time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mood, e.until = mood, time.Now().Add(lasts)
	close(e.change)
	e.change = make(chan struct{})
}

// now is the mood, and a random number for the request.
func (e *endpoint) now() (mood string, random int, until time.Time, change chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.mood != "" && !time.Now().Before(e.until) {
		e.mood = ""
	}
	return e.mood, luck(e.world.history.seed, endpointAddress(e.tenant, e.sub)+e.mood, e.asked).IntN(1000), e.until, e.change
}

// ServeHTTP takes a delivery, or does what its mood says.
func (e *endpoint) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	from := r.Context().Value(connKey{}).(*arrivals)
	from.count++
	begun := from.conn.begun(from.count == 1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut off
	}
	got, err := e.open(r, body)
	if err != nil {
		e.world.violated("%v", err)
		return
	}
	got.begun = begun
	e.world.model.received(got)
	mood, random, until, change := e.now()
	switch mood {
	case "slow":
		e.wait(r.Context(), time.Duration(random)*45*time.Millisecond)
		e.take(rw, got)
	case "hanging":
		select {
		case <-r.Context().Done():
		case <-change:
		case <-time.After(time.Until(until)):
		}
		panic(http.ErrAbortHandler)
	case "failing":
		rw.WriteHeader([]int{500, 503, 404, 302}[random%4])
	case "throttled":
		rw.Header().Set("Retry-After", fmt.Sprint(random%100))
		rw.WriteHeader(http.StatusTooManyRequests)
	case "dripping":
		e.drip(rw, r, got, random)
	case "flapping":
		if random%2 == 0 {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		e.take(rw, got)
	case "torn":
		e.tear(rw, got, random)
	default:
		e.take(rw, got)
	}
}

func (e *endpoint) take(rw http.ResponseWriter, got arrival) {
	e.world.model.took(got)
	rw.WriteHeader(http.StatusOK)
}

func (e *endpoint) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthank"

// drip answers byte by byte.
func (e *endpoint) drip(rw http.ResponseWriter, r *http.Request, got arrival, random int) {
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	e.world.model.took(got)
	for i := range answer {
		if _, err := c.Write([]byte(answer[i : i+1])); err != nil {
			return
		}
		e.wait(r.Context(), time.Duration(random)*4*time.Millisecond)
	}
}

// tear breaks off within the answer. Whether it was taken is not known.
func (e *endpoint) tear(rw http.ResponseWriter, got arrival, random int) {
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	e.world.model.took(got)
	_, _ = io.WriteString(c, answer[:random%len(answer)])
	_ = c.Close()
}

// arrival is a request that reached an endpoint.
type arrival struct {
	life     life
	event    string
	delivery string
	begun    time.Time
}

// open reads a delivery, and checks that it is its tenant's.
func (e *endpoint) open(r *http.Request, body []byte) (arrival, error) {
	found, ok := e.world.lives.get(strings.TrimPrefix(r.URL.Path, "/"))
	if !ok || found.tenant != e.tenant || found.sub != e.sub {
		return arrival{}, fmt.Errorf("crossed: %s came to subscription %d of tenant %d", r.URL.Path, e.sub, e.tenant)
	}
	if err := found.validAt(time.Now()).VerifyStandard(r.Header, body, time.Now(), signature.Tolerance); err != nil {
		if errors.Is(err, signature.ErrExpired) {
			return arrival{}, fmt.Errorf("signature: %w", err)
		}
		return arrival{}, fmt.Errorf("crossed: a delivery to tenant %d is not signed with its key: %w", e.tenant, err)
	}
	var envelope struct {
		ID   string
		Data struct{ TenantID string }
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return arrival{}, fmt.Errorf("body: %w", err)
	}
	if want := e.world.history.tenants[e.tenant].name; envelope.Data.TenantID != want {
		return arrival{}, fmt.Errorf("crossed: an event of %s came to %s", envelope.Data.TenantID, want)
	}
	return arrival{life: found, event: envelope.ID, delivery: r.Header.Get("X-Clinik-Delivery-Id")}, nil
}
