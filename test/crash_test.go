package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// lone is a dispatcher without a cluster, on a folder of manifests and a store of its own.
type lone struct {
	*process
	args []string
	api  string
}

func newLone(t *testing.T, manifests string) *lone {
	t.Helper()
	routes := t.TempDir()
	if err := os.WriteFile(filepath.Join(routes, "a.yaml"), []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &lone{args: []string{
		"dispatcher", "--routes=" + routes, "--store=pebble:" + filepath.Join(t.TempDir(), "store"), "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0",
		"--ingest-auth=none", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8", "--drain-delay=0s",
	}}
	l.start(t)
	t.Cleanup(func() { l.kill() })
	return l
}

func (l *lone) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	if l.process, err = system.run("dispatcher", l.args...); err != nil {
		t.Fatal(err)
	}
	if l.api, err = l.address(ctx); err != nil {
		t.Fatal(err)
	}
}

// folderManifests declares subscriptions to all events of namespace clinic, at the given URLs.
func folderManifests(spec string, urls ...string) string {
	manifests := "apiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: clinic}\nstringData: {current: a signing key of plain text}\n"
	for i, url := range urls {
		manifests += fmt.Sprintf("---\napiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\nmetadata: {name: s%d, namespace: clinic}\n"+
			"spec: {url: %q, events: [\"*\"], signing: {secretRef: {name: key, key: current}}, %s}\n", i, url, spec)
	}
	return manifests
}

// ledger is what producers were promised.
type ledger struct {
	mu       sync.Mutex
	promised []string // ids of events that were answered 202
}

// publish posts events one after the other, in batches of one to five, until ctx ends or the dispatcher dies.
func (a *ledger) publish(ctx context.Context, api string, random *rand.Rand, name string) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		var ids []string
		var events []map[string]any
		for i := range 1 + random.IntN(5) {
			ids = append(ids, fmt.Sprintf("%s-%d-%d", name, n, i))
			events = append(events, map[string]any{"id": ids[i], "type": "lab.created", "data": map[string]any{"resourceId": ids[i], "pad": random.IntN(1 << 30)}})
		}
		body, err := json.Marshal(events)
		if err != nil {
			panic(err)
		}
		response, err := client.Post("http://"+api+"/v1/namespaces/clinic/events", "application/json", bytes.NewReader(body))
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err == nil && response.StatusCode == http.StatusAccepted {
			a.mu.Lock()
			a.promised = append(a.promised, ids...)
			a.mu.Unlock()
		}
	}
}

// audit waits until everything that was promised arrived at r, and checks that what arrived more than once did so under
// one delivery id.
func (a *ledger) audit(t *testing.T, r *receiver) {
	t.Helper()
	a.mu.Lock()
	promised := slices.Clone(a.promised)
	a.mu.Unlock()
	if len(promised) == 0 {
		t.Fatal("nothing was promised")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var duplicates, total int
	err := poll(ctx, func() error {
		deliveries := map[string]map[string]int{} // by event id, then delivery id
		all := r.all()
		total = len(all)
		for _, got := range all {
			var e struct{ ID string }
			if err := json.Unmarshal([]byte(got.body), &e); err != nil {
				return err
			}
			if deliveries[e.ID] == nil {
				deliveries[e.ID] = map[string]int{}
			}
			deliveries[e.ID][got.id()]++
		}
		missing := 0
		duplicates = 0
		for _, id := range promised {
			if len(deliveries[id]) == 0 {
				missing++
			}
		}
		for id, ids := range deliveries {
			if len(ids) > 1 {
				t.Fatalf("event %s was delivered under %d ids", id, len(ids))
			}
			for _, n := range ids {
				duplicates += n - 1
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d promised events did not arrive", missing, len(promised))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events promised, all arrived; %d requests, %d of them repeated", len(promised), total, duplicates)
}

// TestKilledAgainAndAgain kills a dispatcher under load at random moments, and compares every 202 with what arrived.
func TestKilledAgainAndAgain(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	flaky := func(got received) int {
		if len(got.body)%7 == 0 && got.header.Get("X-Clinik-Attempt") == "1" {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	r := newReceiver(t, flaky)
	l := newLone(t, folderManifests("retry: {initialDelay: 1s}", r.URL))
	random := rand.New(rand.NewPCG(1, 2))
	var a ledger
	for round := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var publishers sync.WaitGroup
		for i := range 4 {
			own := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			publishers.Go(func() { a.publish(ctx, l.api, own, fmt.Sprintf("r%d-p%d", round, i)) })
		}
		<-time.After(time.Duration(20+random.IntN(400)) * time.Millisecond)
		l.kill()
		cancel()
		publishers.Wait()
		l.start(t)
	}
	a.audit(t, r)
}
