package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// stage is what a hostile scenario plays on: a dispatcher under a limit, with tenants whose endpoints are the trap's.
type stage struct {
	*product
	bench *bench
	trap  *remoteTrap
	limit *limit
	reads string // token for reading deliveries; none if empty
}

// tenant is a namespace.
type tenant struct {
	group         int
	subscriptions []subscription
}

// subscription of a tenant; its number is its place there.
type subscription struct {
	behaviour string
	spec      string // further keys of its spec, as YAML flow: "timeout: 60s"
}

// repeated returns n times the same subscription.
func repeated(n int, s subscription) []subscription {
	all := make([]subscription, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// props are what differs between stages.
type props struct {
	tenants     []tenant
	arguments   []string
	environment []string
	store       string // folder of the embedded store; one of its own if empty
	bytes       int64  // of memory; memoryLimit if zero
}

// newStage starts a dispatcher on the tenants' manifests. The trap is started once, for all stages.
func (b *bench) newStage(ctx context.Context, s props) (*stage, error) {
	if err := b.needTrap(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return nil, err
	}
	if s.store == "" {
		s.store = filepath.Join(dir, "store")
	}
	if s.bytes == 0 {
		s.bytes = memoryLimit
	}
	limit := &limit{parent: b.cgroup, bytes: s.bytes}
	p := &product{
		bench: b, dir: dir, store: "pebble:" + s.store, limit: limit, arguments: s.arguments, environment: s.environment,
		host: "127.0.1.1", // no connection's own address, so that a restart finds its port free
	}
	st := &stage{product: p, bench: b, trap: b.trap, limit: limit}
	err = os.Mkdir(filepath.Join(dir, "manifests"), 0o700)
	for i := 0; i < len(s.tenants) && err == nil; i++ {
		err = st.write(s.tenants[i])
	}
	if err == nil {
		err = p.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return st, nil
}

func (b *bench) needTrap(ctx context.Context) (err error) {
	if b.trap == nil {
		b.trap, err = startTrap(ctx)
		return err
	}
	return b.trap.post(ctx, "forget")
}

const trapManifest = `apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: endpoint-%d, namespace: %s}
spec: {url: "%s", events: ["*"], signing: {secretRef: {name: signing, key: key}}%s}
---
`

// write writes a tenant's manifests, in place of those that it had.
func (s *stage) write(t tenant) error {
	var text bytes.Buffer
	namespace := namespaceOf(t.group)
	fmt.Fprintf(&text, signingManifest, namespace, signingKey)
	for number, sub := range t.subscriptions {
		more := ""
		if sub.spec != "" {
			more = ", " + sub.spec
		}
		fmt.Fprintf(&text, trapManifest, number, namespace, s.trap.url(sub.behaviour, t.group, number), more)
	}
	path := filepath.Join(s.dir, "manifests", namespace+".yaml")
	if err := os.WriteFile(path+".new", text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// end kills the dispatcher and removes what it kept.
func (s *stage) end() {
	s.product.end()
	s.limit.end()
}

// again kills the dispatcher, if it still runs, and starts it on the same addresses.
func (s *stage) again(ctx context.Context) error {
	_ = s.kill()
	_ = s.log.Close()
	return s.start(ctx)
}

// gone reports whether the dispatcher ended without being asked to.
func (s *stage) gone() bool {
	fields := statFields(s.pid)
	return len(fields) == 0 || fields[0] == "Z"
}

// newLoad returns a load of events events for groups groups from first on, with fan endpoints each.
func (s *stage) newLoad(first, groups, fan, events, publishers, batch int) *load {
	l := newLoad(plan{Run: s.bench.nextRun(), Events: events, Groups: groups, Fan: fan}, s.api, publishers, batch)
	l.first, l.stubborn, l.timeout = first, true, time.Minute
	return l
}

// beside runs a load in the background until it is done or the function that it returns is called, which waits for it.
func (s *stage) beside(ctx context.Context, l *load, run func(context.Context, *load) error) (stop func() error, err error) {
	if err := s.trap.begin(ctx, l); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(ctx, l) }()
	return sync.OnceValue(func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}), nil
}

func closed(ctx context.Context, l *load) error { return l.closedLoop(ctx) }

// steadily returns a run of a load at a steady rate.
func steadily(perSecond float64) func(context.Context, *load) error {
	return func(ctx context.Context, l *load) error { return l.openLoop(ctx, perSecond) }
}

// wellness is how a healthy tenant fares.
type wellness struct {
	P50, P99, Publish50, Publish99 float64 // milliseconds, end to end and of the publish alone
	Refused, Broken, Missing       int
}

// lateAfter is how long after the last publish a healthy delivery may still come. What comes later counts as missing.
const lateAfter = 30 * time.Second

// measure publishes to the healthy tenant's only endpoint at a steady rate.
func (s *stage) measure(ctx context.Context, perSecond float64, duration time.Duration, set func(*load)) (w wellness, err error) {
	l := s.newLoad(healthyGroup, 1, 1, max(1, int(perSecond*duration.Seconds())), 32, 1)
	if set != nil {
		set(l)
	}
	if err := s.trap.begin(ctx, l); err != nil {
		return w, err
	}
	limited, cancel := context.WithTimeout(ctx, duration+lateAfter)
	defer cancel()
	if err := l.openLoop(limited, perSecond); err != nil && ctx.Err() != nil {
		return w, err
	}
	if err := s.trap.wait(ctx, l.Run, l.Events, lateAfter); err != nil {
		return w, err
	}
	sum, err := s.trap.tally(ctx, l.Run)
	if err != nil {
		return w, err
	}
	w = wellness{P50: sum.Latency.P50, P99: sum.Latency.P99, Missing: l.Events - sum.Arrived}
	w.published(l)
	// What never came was slower than everything that did.
	late := float64(lateAfter.Milliseconds())
	if w.Missing*100 > l.Events {
		w.P99 = max(w.P99, late)
	}
	if w.Missing*2 > l.Events {
		w.P50 = max(w.P50, late)
	}
	s.bench.progress("  healthy: p50 %.1f ms, p99 %.1f ms; publish p50 %.1f ms, p99 %.1f ms; %d refused, %d broken, %d missing",
		w.P50, w.P99, w.Publish50, w.Publish99, w.Refused, w.Broken, w.Missing)
	return w, nil
}

// ratio of two figures; at most allowed where the first is good enough as it is.
func ratio(with, without, allowed, goodEnough float64) float64 {
	r := with / max(without, 0.001)
	if with <= goodEnough {
		r = min(r, allowed)
	}
	return r
}

// compare adds how a healthy tenant fared with and without the others.
func (w wellness) compare(m *measured, prefix string, without wellness, allowed, goodEnough float64) {
	m.add(prefix+"p99 over p99 without", ratio(w.P99, without.P99, allowed, goodEnough))
	m.add(prefix+"healthy p50 (ms)", w.P50)
	m.add(prefix+"healthy p99 (ms)", w.P99)
	m.add(prefix+"healthy p50 without (ms)", without.P50)
	m.add(prefix+"healthy p99 without (ms)", without.P99)
	m.add(prefix+"healthy refused", float64(w.Refused+w.Broken))
	m.add(prefix+"healthy missing", float64(w.Missing))
}

// listed calls visit for each delivery of a namespace in a state, as GET deliveries lists them; of all its subscriptions
// if the one given is empty.
func (s *stage) listed(ctx context.Context, namespace, subscription, state string, visit func(event, subscription string)) error {
	token := ""
	for {
		values := url.Values{"limit": {"1000"}, "state": {state}}
		if token != "" {
			values.Set("continue", token)
		}
		if subscription != "" {
			values.Set("subscription", subscription)
		}
		var page struct {
			Items []struct {
				Event        struct{ ID string }
				Subscription string
			}
			Continue string
		}
		body, err := s.call(ctx, http.MethodGet, namespace+"/deliveries?"+values.Encode(), nil)
		if err == nil {
			err = json.Unmarshal(body, &page)
		}
		if err != nil {
			return fmt.Errorf("list deliveries: %w", err)
		}
		for i := range page.Items {
			visit(page.Items[i].Event.ID, page.Items[i].Subscription)
		}
		if token = page.Continue; token == "" {
			return nil
		}
	}
}

// call makes a request of the API, and repeats it where the API asks for that.
func (s *stage) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	for {
		request, err := http.NewRequestWithContext(ctx, method, "http://"+s.api+"/v1/namespaces/"+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		if s.reads != "" {
			request.Header.Set("Authorization", "Bearer "+s.reads)
		}
		if len(body) > 0 {
			request.Header.Set("Content-Type", "application/json")
		}
		response, err := asking.Do(request)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		switch code := response.StatusCode; {
		case err != nil:
			return nil, err
		case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
			seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
			if err := pause(ctx, time.Duration(max(1, seconds))*time.Second); err != nil {
				return nil, err
			}
		case code >= http.StatusMultipleChoices:
			return nil, fmt.Errorf("%s was answered with %s: %.200s", method, response.Status, answer)
		default:
			return answer, nil
		}
	}
}
