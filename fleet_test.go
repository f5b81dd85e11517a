package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// fleet is some dispatcher processes on one database.
type fleet struct {
	*testing.T
	database *postgrestest.Server
	endpoint *endpoint
	dir      string
	program  string // that start starts; eventflow if it is not another build

	mu     sync.Mutex
	planes []*plane // those that clients know
}

// newFleet starts a database and n dispatchers. Each resource of the catalog has a subscription of its own, so that
// the work is spread over the shards; its events are posted to a path of its name. more are further manifests.
func newFleet(t *testing.T, n int, more ...string) *fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	database, err := postgrestest.Start(postgrestest.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fleet{T: t, database: database, endpoint: newEndpoint(t), dir: t.TempDir()}
	manifests := append([]string{strings.Split(manifest, "---")[0]}, more...)
	for _, resource := range event.Resources {
		manifests = append(manifests, subscribe(resource, resource+".created"))
	}
	text := strings.ReplaceAll(strings.Join(manifests, "---"), "ENDPOINT", f.endpoint.URL)
	if err := os.Mkdir(filepath.Join(f.dir, "routes"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "routes", "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		f.start()
	}
	return f
}

// subscribe is the manifest of a subscription to events, which are posted to a path of its name.
func subscribe(name, events string) string {
	return fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: %[1]s, namespace: clinic-a}
spec:
  url: ENDPOINT/%[1]s
  events: ["%[2]s"]
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}
`, name, events)
}

// start starts one more dispatcher.
func (f *fleet) start() *plane {
	f.Helper()
	p := &plane{t: f.T, dir: f.dir, store: f.database.URL("postgres"), program: f.program}
	p.start()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planes = append(f.planes, p)
	return p
}

// forget lets clients not go to the dispatcher any more.
func (f *fleet) forget(p *plane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planes = slices.DeleteFunc(f.planes, func(other *plane) bool { return other == p })
}

// pick is the dispatcher that a client's n-th try goes to.
func (f *fleet) pick(n int) *plane {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.planes[n%len(f.planes)]
}

// all are the dispatchers that clients know.
func (f *fleet) all() []*plane {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.planes)
}

// probe is the status that the dispatcher answers for a path of its own.
func (p *plane) probe(path string) int {
	response, err := http.Get("http://" + p.ops + path) //nolint:forbidigo // a test's
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// gauge is one of the dispatcher's metrics without labels, -1 if it cannot be read.
func (p *plane) gauge(name string) float64 {
	response, err := http.Get("http://" + p.ops + "/metrics") //nolint:forbidigo // a test's
	if err != nil {
		return -1
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if value, err := strconv.ParseFloat(text, 64); err == nil {
				return value
			}
		}
	}
	return -1
}

// owned is how many shards the dispatchers work on.
func owned(planes ...*plane) (n float64) {
	for _, p := range planes {
		n += max(0, p.gauge("eventflow_store_owned_shards"))
	}
	return n
}

// ack is a publish that was acknowledged.
type ack struct {
	id       string
	sent, at time.Time
}

// refusal is a publish that was not.
type refusal struct {
	sent time.Time
	took time.Duration
}

// traffic is events that clients publish until it is ended. What is not acknowledged they send again, with the same id.
type traffic struct {
	*fleet
	end    func()
	failed atomic.Int64 // no answer, or another than expected

	mu      sync.Mutex
	acked   []ack
	refused []refusal // 503
}

const (
	// publishPause is between two publishes of a client, refusedPause after one that was refused: these clients are
	// less patient than Retry-After asks them to be.
	publishPause = 10 * time.Millisecond
	refusedPause = 100 * time.Millisecond
)

func (f *fleet) traffic(clients int) *traffic {
	ctx, cancel := context.WithCancel(f.Context())
	t := &traffic{fleet: f}
	var publishing sync.WaitGroup
	for c := range clients {
		publishing.Go(func() { t.publish(ctx, c) })
	}
	t.end = sync.OnceFunc(func() {
		cancel()
		publishing.Wait()
	})
	f.Cleanup(t.end)
	return t
}

func (t *traffic) publish(ctx context.Context, client int) {
	tick := time.NewTicker(publishPause)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("evt-%d-%d", client, n)
		for try := 0; ctx.Err() == nil; try++ {
			<-tick.C
			if t.post(t.pick(client+n+try), id, event.Resources[(client+n)%len(event.Resources)]) {
				break
			}
			<-time.After(refusedPause)
		}
	}
}

// post reports whether the event was acknowledged.
func (t *traffic) post(to *plane, id, resource string) bool {
	body := `{"id":"` + id + `","type":"` + resource + `.created","data":{"resourceId":"` + id + `"}}`
	client := http.Client{Timeout: 15 * time.Second}
	sent := time.Now()
	response, err := client.Post("http://"+to.api+"/v1/namespaces/clinic-a/events", "application/json", strings.NewReader(body))
	if err != nil {
		t.failed.Add(1)
		return false
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	now := time.Now()
	switch response.StatusCode {
	case http.StatusAccepted, http.StatusOK:
		t.mu.Lock()
		t.acked = append(t.acked, ack{id, sent, now})
		t.mu.Unlock()
		return true
	case http.StatusServiceUnavailable:
		t.mu.Lock()
		t.refused = append(t.refused, refusal{sent, now.Sub(sent)})
		t.mu.Unlock()
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("503 with Retry-After %q: %s", response.Header.Get("Retry-After"), answer)
		}
	default:
		t.failed.Add(1)
		t.Errorf("%d %s", response.StatusCode, answer)
	}
	return false
}

// acks are the publishes that were acknowledged, from the n-th on.
func (t *traffic) acks(n int) []ack {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.acked[n:])
}

// refusals are the publishes that were refused.
func (t *traffic) refusals() []refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.refused)
}

func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.acked)
}

// flows waits until more is acknowledged.
func (t *traffic) flows(more int) {
	t.Helper()
	before := t.count()
	eventually(t.T, "events are acknowledged", func() bool { return t.count() >= before+more })
}

// eventOf is the id of the event that the attempt carried.
func eventOf(a attempt) string {
	_, rest, _ := strings.Cut(string(a.body), `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// arrivals are the times at which each event was first received.
func (t *traffic) arrivals() map[string]time.Time {
	first := map[string]time.Time{}
	for _, a := range t.endpoint.received() {
		if _, again := first[eventOf(a)]; !again {
			first[eventOf(a)] = a.at
		}
	}
	return first
}

// arrive waits until all of the events were received.
func (t *traffic) arrive(what string, acks []ack) {
	t.Helper()
	eventually(t.T, what, func() bool {
		first := t.arrivals()
		return !slices.ContainsFunc(acks, func(a ack) bool { _, ok := first[a.id]; return !ok })
	})
}

// audit waits until everything that was acknowledged arrived, and compares the ids of what came twice.
func (t *traffic) audit() {
	t.Helper()
	t.end()
	t.arrive("all that was acknowledged arrives", t.acks(0))
	deliveries := map[string]string{}
	for _, a := range t.endpoint.received() {
		id, delivery := eventOf(a), a.header.Get("Webhook-Id")
		if before, again := deliveries[id]; again && before != delivery {
			t.Errorf("%s came as %s and as %s", id, before, delivery)
		}
		deliveries[id] = delivery
	}
	t.Logf("%d acknowledged, %d refused, %d without an answer; %d arrived in %d attempts, %d of them made twice",
		t.count(), len(t.refusals()), t.failed.Load(), len(deliveries), len(t.endpoint.received()), t.repeated())
}

// latest is how long after its acknowledgement the latest of the events came that were acknowledged from the n-th on.
func (t *traffic) latest(n int) (late time.Duration) {
	first := t.arrivals()
	for _, a := range t.acks(n) {
		late = max(late, first[a.id].Sub(a.at))
	}
	return late
}

// to are the attempts at the path of a subscription.
func (e *endpoint) to(subscription string) (attempts []attempt) {
	for _, a := range e.received() {
		if strings.HasSuffix(a.path, "/"+subscription) {
			attempts = append(attempts, a)
		}
	}
	return attempts
}

// repeated is how many attempts were made twice, under the same delivery id and number.
func (t *traffic) repeated() (n int) {
	seen := map[string]bool{}
	for _, a := range t.endpoint.received() {
		attempt := a.header.Get("Webhook-Id") + " " + a.header.Get("X-Clinik-Attempt")
		if seen[attempt] {
			n++
		}
		seen[attempt] = true
	}
	return n
}

// goesOn measures how long events to every shard take to arrive that are published from now on.
func (t *traffic) goesOn() time.Duration {
	t.Helper()
	start := time.Now()
	from := t.count()
	t.flows(3 * len(event.Resources))
	t.arrive("every subscription gets its events", t.acks(from))
	return time.Since(start)
}
