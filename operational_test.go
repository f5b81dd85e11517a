package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// watched is some dispatchers on one store, with a subscription to all, one that gives up at once, and one to operational events.
type watched struct {
	*testing.T
	dir      string
	planes   []*plane
	endpoint *endpoint
}

const newSigningKey = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

// route writes the manifests, with the key.
func (w *watched) route(key string) {
	w.Helper()
	once := strings.Replace(subscribe("once", "lab.created"), "maxDelay: 1s", "maxDelay: 1s, maxAttempts: 1", 1)
	text := strings.Join([]string{
		strings.ReplaceAll(strings.Split(manifest, "---")[0], signingKey, key), subscribe("all", "*"), once, subscribe("monitor", "eventflow.*"),
	}, "---")
	fresh := filepath.Join(w.dir, "fresh")
	if err := os.WriteFile(fresh, []byte(strings.ReplaceAll(text, "ENDPOINT", w.endpoint.URL)), 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(fresh, filepath.Join(w.dir, "routes", "all.yaml")); err != nil {
		w.Fatal(err)
	}
}

func newWatched(t *testing.T, store string, replicas int) *watched {
	t.Helper()
	w := &watched{T: t, dir: t.TempDir(), endpoint: newEndpoint(t)}
	if err := os.Mkdir(filepath.Join(w.dir, "routes"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.route(signingKey)
	for range replicas {
		p := &plane{t: t, dir: w.dir, store: store}
		p.start()
		w.planes = append(w.planes, p)
	}
	return w
}

// answers lets the endpoint answer each subscription with a status of its own; 200 where there is none.
func (w *watched) answers(codes map[string]int) {
	w.endpoint.answers(func(to http.ResponseWriter, r *http.Request) {
		if code := codes[strings.TrimPrefix(r.URL.Path, "/")]; code != 0 {
			to.WriteHeader(code)
		}
	})
}

func (w *watched) publish(n int, typ string) {
	w.Helper()
	for i := range n {
		if status, answer := w.planes[i%len(w.planes)].post(`{"type":"` + typ + `","data":{}}`); status != http.StatusAccepted {
			w.Fatalf("publish: %d %s", status, answer)
		}
	}
}

// told counts the different deliveries of operational events by "type about reason".
func (w *watched) told() map[string]int {
	counts, seen := map[string]int{}, map[string]bool{}
	for _, a := range w.endpoint.to("monitor") {
		var e struct {
			Type string
			Data struct{ Subscription, Reason string }
		}
		if err := json.Unmarshal(a.body, &e); err != nil {
			w.Errorf("body %s: %v", a.body, err)
		}
		if id := a.header.Get("X-Clinik-Delivery-Id"); !seen[id] {
			seen[id] = true
			counts[strings.TrimSpace(fmt.Sprint(e.Type, " ", e.Data.Subscription, " ", e.Data.Reason))]++
		}
	}
	return counts
}

// hears waits until the monitor was told so often.
func (w *watched) hears(what string, times int) {
	w.Helper()
	eventually(w.T, fmt.Sprintf("%d of %q", times, what), func() bool { return w.told()[what] >= times })
}

// TestOperationalEvents walks an endpoint through failing, a kill of its dispatcher, recovery and 410, gives deliveries up,
// rotates a key and lets the monitor itself fail: it hears of each once, and nothing of itself; the others hear nothing.
func TestOperationalEvents(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for name, replicas := range map[string]int{"pebble": 1, "postgres": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := "pebble:store"
			if replicas > 1 {
				database, err := postgrestest.Start(postgrestest.Options{Durable: true})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = database.Stop() })
				store = database.URL("postgres")
			}
			newWatched(t, store, replicas).walk()
		})
	}
}

func (w *watched) walk() {
	const failing, recovered, gone = "eventflow.endpoint.failing all StatusCode", "eventflow.endpoint.recovered all", "eventflow.endpoint.gone all StatusCode"
	w.answers(map[string]int{"all": http.StatusInternalServerError, "once": http.StatusBadRequest})
	w.publish(12, "patient.created")
	w.publish(2, "lab.created")
	w.hears(failing, 1)
	w.hears("eventflow.delivery.failed once StatusCode", 2)

	for _, p := range w.planes { // what stands still after that is told of again, and is a repetition
		p.end(syscall.SIGKILL)
	}
	before := len(w.endpoint.to("all"))
	for _, p := range w.planes {
		p.start()
	}
	eventually(w.T, "attempts go on", func() bool { return len(w.endpoint.to("all")) > before+2 })

	w.answers(map[string]int{"monitor": http.StatusServiceUnavailable})
	w.hears(recovered, 1) // attempted, and failed
	w.route(newSigningKey)
	w.hears("eventflow.key.rotated all", 1)
	w.hears("eventflow.key.rotated once", 1)
	failures := len(w.endpoint.to("monitor"))
	eventually(w.T, "the monitor fails", func() bool { return len(w.endpoint.to("monitor")) > failures+12 })
	w.answers(map[string]int{"all": http.StatusGone})
	w.publish(1, "patient.created")
	w.hears(gone, 1)

	want := map[string]int{
		failing: 1, recovered: 1, gone: 1, "eventflow.delivery.failed once StatusCode": 2, "eventflow.key.rotated all": 1, "eventflow.key.rotated once": 1,
	}
	if got := w.told(); fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("told %v\nwant %v", got, want)
	}
	for _, name := range []string{"all", "once"} {
		for _, a := range w.endpoint.to(name) {
			if strings.HasPrefix(a.header.Get("X-Clinik-Event"), "eventflow.") {
				w.Errorf("%s was told of %s", name, a.body)
			}
		}
	}
	for _, p := range w.planes {
		if status, answer := p.post(`{"type":"eventflow.endpoint.gone","data":{}}`); status != http.StatusUnprocessableEntity && status != http.StatusBadRequest {
			w.Errorf("published by a user: %d %s", status, answer)
		}
	}
}
