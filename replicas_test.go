package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// leases is how long after its end a killed dispatcher's work may take to go on at another.
const leases = 10 * time.Second

// fleet is some dispatcher processes on one database.
type fleet struct {
	*testing.T
	database *postgrestest.Server
	endpoint *endpoint
	dir      string

	mu     sync.Mutex
	planes []*plane // those that clients know
}

// newFleet starts a database and n dispatchers. Each resource of the catalog has a subscription of its own, so that
// the work is spread over the shards.
func newFleet(t *testing.T, n int) *fleet {
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
	manifests := []string{strings.Split(manifest, "---")[0]}
	for _, resource := range event.Resources {
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: %s, namespace: clinic-a}
spec:
  url: %s
  events: ["%s.*"]
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}
`, resource, f.endpoint.URL, resource))
	}
	if err := os.Mkdir(filepath.Join(f.dir, "routes"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "routes", "all.yaml"), []byte(strings.Join(manifests, "---")), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		f.start()
	}
	return f
}

// start starts one more dispatcher.
func (f *fleet) start() *plane {
	f.Helper()
	p := &plane{t: f.T, dir: f.dir, store: f.database.URL("postgres")}
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

// traffic is events that clients publish until it is ended. What is not acknowledged they send again, with the same id.
type traffic struct {
	*fleet
	end     func()
	refused atomic.Int64 // 503
	failed  atomic.Int64 // no answer, or another than expected

	mu    sync.Mutex
	acked []string
}

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
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("evt-%d-%d", client, n)
		for try := 0; ctx.Err() == nil; try++ {
			<-tick.C
			if t.post(t.pick(client+n+try), id, event.Resources[(client+n)%len(event.Resources)]) {
				t.mu.Lock()
				t.acked = append(t.acked, id)
				t.mu.Unlock()
				break
			}
		}
	}
}

// post tells whether the event was acknowledged.
func (t *traffic) post(to *plane, id, resource string) bool {
	body := `{"id":"` + id + `","type":"` + resource + `.created","data":{"resourceId":"` + id + `"}}`
	client := http.Client{Timeout: 15 * time.Second}
	response, err := client.Post("http://"+to.api+"/v1/namespaces/clinic-a/events", "application/json", strings.NewReader(body))
	if err != nil {
		t.failed.Add(1)
		return false
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	switch response.StatusCode {
	case http.StatusAccepted, http.StatusOK:
		return true
	case http.StatusServiceUnavailable:
		t.refused.Add(1)
		if response.Header.Get("Retry-After") == "" {
			t.Errorf("503 without Retry-After: %s", answer)
		}
	default:
		t.failed.Add(1)
		t.Errorf("%d %s", response.StatusCode, answer)
	}
	return false
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

// missing returns those of the events that were not received yet.
func (t *traffic) missing(ids []string) (missing []string) {
	received := map[string]bool{}
	for _, a := range t.endpoint.received() {
		_, rest, _ := strings.Cut(string(a.body), `"id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		received[id] = true
	}
	for _, id := range ids {
		if !received[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// audit waits until everything that was acknowledged arrived, and compares the ids of what came twice.
func (t *traffic) audit() {
	t.Helper()
	t.end()
	eventually(t.T, "all that was acknowledged arrives", func() bool { return len(t.missing(t.acked)) == 0 })
	deliveries, repeated := map[string]string{}, 0
	for _, a := range t.endpoint.received() {
		_, rest, _ := strings.Cut(string(a.body), `"id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		delivery := a.header.Get("Webhook-Id")
		if before, again := deliveries[id]; again {
			repeated++
			if before != delivery {
				t.Errorf("%s came as %s and as %s", id, before, delivery)
			}
		}
		deliveries[id] = delivery
	}
	t.Logf("%d acknowledged, %d refused, %d without an answer; %d arrived, %d of them again", len(t.acked), t.refused.Load(), t.failed.Load(), len(deliveries), repeated)
}

// goesOn measures how long events to every shard take to arrive that are published from now on.
func (t *traffic) goesOn() time.Duration {
	t.Helper()
	start := time.Now()
	from := t.count()
	t.flows(3 * len(event.Resources))
	t.mu.Lock()
	ids := slices.Clone(t.acked[from:])
	t.mu.Unlock()
	eventually(t.T, "every subscription gets its events", func() bool { return len(t.missing(ids)) == 0 })
	return time.Since(start)
}

// TestReplicasKilled kills one of three dispatchers again and again, without a word, under load.
func TestReplicasKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	load := f.traffic(8)
	load.flows(100)
	for round := range 3 {
		victim := f.pick(round)
		f.forget(victim)
		killed := time.Now()
		victim.end(syscall.SIGKILL)
		load.goesOn()
		took := time.Since(killed)
		t.Logf("its work goes on after %s", took)
		if took > leases+5*time.Second {
			t.Errorf("its work went on only after %s", took)
		}
		f.start()
		load.flows(100)
	}
	load.audit()
}

// TestReplicaPaused stops a dispatcher for longer than its lease, and lets it go on.
func TestReplicaPaused(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	load := f.traffic(8)
	load.flows(100)
	paused := f.pick(0)
	f.forget(paused)
	if err := paused.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	took := load.goesOn()
	t.Logf("its work goes on after %s", took)
	if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	load.flows(200)
	load.audit()
}

// TestDatabaseAway stops the database under load: publishes are refused, and everything goes on by itself.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	load := f.traffic(8)
	load.flows(100)
	if err := f.database.Shutdown(); err != nil {
		t.Fatal(err)
	}
	before := load.refused.Load()
	eventually(t, "publishes are refused", func() bool { return load.refused.Load() > before+50 })
	if err := f.database.Start(); err != nil {
		t.Fatal(err)
	}
	load.goesOn()
	load.audit()
	if n := load.failed.Load(); n > 0 {
		t.Errorf("%d publishes had no answer", n)
	}
}

// TestRollingUpdate replaces every dispatcher under load, in good order: no publish fails, and nothing comes twice.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	load := f.traffic(8)
	load.flows(100)
	for range 2 {
		old := f.pick(0)
		f.start()
		load.flows(50)
		if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		load.flows(5) // clients learn of it a little later
		f.forget(old)
		select {
		case <-old.ended:
		case <-time.After(patience):
			t.Fatal("it does not end")
		}
		if old.err != nil {
			t.Errorf("it ended with %v", old.err)
		}
		load.goesOn()
	}
	load.audit()
	if refused, failed := load.refused.Load(), load.failed.Load(); refused+failed > 0 {
		t.Errorf("%d publishes were refused, %d had no answer", refused, failed)
	}
	if n := len(f.endpoint.received()); n != len(load.acked) {
		t.Errorf("%d deliveries of %d events", n, len(load.acked))
	}
}
