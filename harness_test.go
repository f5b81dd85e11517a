package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a real process may take for anything that is waited for.
const patience = 60 * time.Second

// manifest is a Secret and the subscription "all" of clinic-a, which posts to the URL that is filled in.
const manifest = `
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: clinic-a}
stringData: {current: ` + signingKey + `}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: all, namespace: clinic-a}
spec:
  url: %s
  events: ["*"]
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}
`

const signingKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// plane is a dispatcher process without a cluster.
type plane struct {
	t       *testing.T
	dir     string // holds the folders routes and store
	store   string
	program string // eventflow, if it is not another build
	// arguments stand in place of those that name routes and what deliveries may reach; opsAddress is "" for any port.
	arguments   []string
	environment []string // beside this process's
	opsAddress  string
	cmd         *exec.Cmd
	api, ops    string
	ended       chan struct{} // closed once the process is gone and err and log are complete
	err         error
	log         bytes.Buffer
}

// newPlane starts a dispatcher whose one subscription posts to url.
func newPlane(t *testing.T, url string) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), store: "pebble:store"}
	if err := os.Mkdir(filepath.Join(p.dir, "routes"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.route(url)
	p.start()
	return p
}

// route writes the manifest, as an editor does: at once.
func (p *plane) route(url string) {
	p.t.Helper()
	fresh := filepath.Join(p.dir, "fresh")
	if err := os.WriteFile(fresh, fmt.Appendf(nil, manifest, url), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(fresh, filepath.Join(p.dir, "routes", "all.yaml")); err != nil {
		p.t.Fatal(err)
	}
}

// start starts the process on the folders that are there, and waits until it is ready.
func (p *plane) start() {
	p.t.Helper()
	ready := p.launch()
	select {
	case addresses := <-ready:
		p.api, p.ops = addresses[0], addresses[1]
	case <-p.ended:
		p.t.Fatalf("the dispatcher ended: %v\n%s", p.err, &p.log)
	case <-time.After(patience):
		p.t.Fatal("the dispatcher did not become ready")
	}
}

// launch starts the process. Once it is ready, its addresses can be received.
func (p *plane) launch() <-chan [2]string {
	p.t.Helper()
	if p.program == "" {
		p.program = "eventflow"
	}
	arguments := p.arguments
	if arguments == nil {
		arguments = []string{"--routes=routes", "--ingest-auth=none", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8"}
	}
	p.cmd = exec.Command(p.program, append([]string{"dispatcher", "--store=" + p.store, "--listen=127.0.0.1:0",
		"--ops-listen=" + cmp.Or(p.opsAddress, "127.0.0.1:0"), "--drain-delay=1s"}, arguments...)...)
	p.cmd.Dir, p.cmd.Env = p.dir, append(os.Environ(), p.environment...)
	p.ended = make(chan struct{})
	p.log.Reset()
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ready := make(chan [2]string, 1)
	ended := p.ended
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(&p.log, lines.Text())
			var entry struct{ API, Ops string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.API != "" {
				ready <- [2]string{entry.API, entry.Ops}
			}
		}
		p.err = p.cmd.Wait()
		close(ended)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-ended
	})
	return ready
}

// end sends a signal and waits until the process is gone.
func (p *plane) end(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the dispatcher did not end after %v", signal)
	}
}

// post publishes events into clinic-a, and returns the status, 0 if there was no answer.
func (p *plane) post(body string) (status int, answer string) {
	response, err := http.Post("http://"+p.api+"/v1/namespaces/clinic-a/events", "application/json", strings.NewReader(body)) //nolint:forbidigo // a test's
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// publish publishes an event with the id.
func (p *plane) publish(id string) {
	p.t.Helper()
	status, answer := p.post(`{"id":"` + id + `","type":"patient.created","data":{"resourceId":"` + id + `"}}`)
	if status != http.StatusAccepted || answer != `{"id":"`+id+`","deliveries":1}`+"\n" {
		p.t.Fatalf("published %s: %d %s", id, status, answer)
	}
}

// delivery is what the API says of one.
type delivery struct {
	ID           string
	State        string
	AttemptCount int
	Event        struct{ ID string }
}

// deliveries lists the newest thousand.
func (p *plane) deliveries() []delivery {
	p.t.Helper()
	response, err := http.Get("http://" + p.api + "/v1/namespaces/clinic-a/deliveries?limit=1000") //nolint:forbidigo // a test's
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	var list struct{ Items []delivery }
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		p.t.Fatal(err)
	}
	return list.Items
}

// attempt is what the endpoint received.
type attempt struct {
	at     time.Time
	path   string
	header http.Header
	body   []byte
}

// endpoint is a receiver that records and answers as it is told.
type endpoint struct {
	*httptest.Server
	mu       sync.Mutex
	attempts []attempt
	answer   func(http.ResponseWriter, *http.Request)
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{answer: func(http.ResponseWriter, *http.Request) {}}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was killed
		}
		e.mu.Lock()
		e.attempts = append(e.attempts, attempt{time.Now(), r.URL.Path, r.Header.Clone(), body})
		answer := e.answer
		e.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

// fail answers with status from now on.
func (e *endpoint) fail(status int) {
	e.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

func (e *endpoint) answers(answer func(http.ResponseWriter, *http.Request)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = answer
}

// received returns all attempts so far.
func (e *endpoint) received() []attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]attempt(nil), e.attempts...)
}

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
