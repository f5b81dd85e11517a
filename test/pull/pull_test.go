package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/receiver"
)

const manifest = `apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: NAMESPACE}
stringData: {current: NAMESPACE-signs-with-24-bytes-or-more}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: billing, namespace: NAMESPACE}
spec:
  events: ["patient.*"]
  delivery: {mode: Pull}
  signing: {secretRef: {name: keys, key: current}}
`

const (
	events   = 1000
	clinicA  = "clinic-a"
	clinicB  = "clinic-b"
	patience = 2 * time.Minute
)

func TestMain(m *testing.M) {
	if url := os.Getenv("PULL_FROM"); url != "" {
		os.Exit(consume(url, os.Getenv("PULL_INTO")))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "eventflow-pull-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "eventflow")
	return m.Run()
}

// consume is the consumer's process: it writes a line into a file for each event that it handles, or for what it should never get.
func consume(url, name string) int {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	hooks, err := receiver.New(receiver.Config{
		Secrets: []string{clinicA + "-signs-with-24-bytes-or-more"},
		On: receiver.Routes{"*": func(_ context.Context, e receiver.Event) error {
			<-time.After(2 * time.Millisecond) // what handling takes: kills come in the middle of pages
			_, err := fmt.Fprintln(file, e.ID)
			return err
		}},
		Observe: func(_ context.Context, o receiver.Outcome) {
			if o.Err != nil {
				_, _ = fmt.Fprintln(file, "failed:", o.Err)
			}
		},
	})
	if err == nil {
		err = hooks.Pull(context.Background(), receiver.PullConfig{URL: url, Namespace: clinicA, Subscription: "billing", Wait: 2 * time.Second, Limit: 37})
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// process is one that is killed in the end.
type process struct {
	command *exec.Cmd
	ended   chan struct{}
}

func start(t *testing.T, command *exec.Cmd) *process {
	t.Helper()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log := &bytes.Buffer{}
	command.Stderr = log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{command: command, ended: make(chan struct{})}
	go func() { _ = command.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s", log)
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// dispatcher is one without a cluster, always at the same address.
type dispatcher struct {
	t       *testing.T
	dir, at string
	process *process
}

func (d *dispatcher) start() {
	d.t.Helper()
	command := exec.Command(binary, "dispatcher", "--routes=routes", "--store=pebble:store", "--ingest-auth=none", "--listen="+d.at, "--ops-listen=127.0.0.1:0")
	command.Dir = d.dir
	d.process = start(d.t, command)
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("tcp", d.at)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-d.process.ended:
			d.t.Fatal("the dispatcher ended")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			d.t.Fatal("the dispatcher does not listen")
		}
	}
}

// publish sends an event until it is answered with 202, or with 200 because it was stored although its answer was lost.
func (d *dispatcher) publish(ctx context.Context, namespace, id string) error {
	body := `{"id":"` + id + `","type":"patient.created","data":{"resourceType":"patient","resourceId":"` + id + `"}}`
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.at+"/v1/namespaces/"+namespace+"/events", strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		if response, err := http.DefaultClient.Do(r); err == nil { //nolint:forbidigo // a test's
			_ = response.Body.Close()
			if response.StatusCode == http.StatusAccepted || response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// binary is the dispatcher, which build makes once.
var binary string

var build = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", binary, "../..").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	return nil
})

func newDispatcher(t *testing.T) *dispatcher {
	t.Helper()
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	d := &dispatcher{t: t, dir: t.TempDir(), at: reserved.Addr().String()}
	_ = reserved.Close()
	routes := filepath.Join(d.dir, "routes")
	if err := os.Mkdir(routes, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{clinicA, clinicB} {
		if err := os.WriteFile(filepath.Join(routes, namespace+".yaml"), []byte(strings.ReplaceAll(manifest, "NAMESPACE", namespace)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	return d
}

func id(i int) string { return fmt.Sprintf("evt-%04d", i) }

// TestKilledConsumerAndDispatcher: 1,000 events are published one after the other, while the consumer is killed again and again,
// and the dispatcher once. Each is handled, in order of acceptance, by what is signed for the consumer's own namespace alone.
func TestKilledConsumerAndDispatcher(t *testing.T) {
	t.Parallel()
	d := newDispatcher(t)
	handled := filepath.Join(t.TempDir(), "handled")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var published atomic.Int64
	half := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := range events {
			if i == events/2 {
				close(half)
			}
			if err := d.publish(ctx, clinicA, id(i)); err != nil {
				t.Errorf("publish %d: %v", i, err)
				return
			}
			if i%10 == 0 {
				if err := d.publish(ctx, clinicB, fmt.Sprint("foreign-", i)); err != nil {
					t.Errorf("publish %d: %v", i, err)
					return
				}
			}
			published.Add(1)
		}
	})
	kills := 0
	for fresh := half; ; kills++ {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), "PULL_FROM=http://"+d.at, "PULL_INTO="+handled)
		consumer := start(t, command)
		select {
		case <-time.After(100*time.Millisecond + time.Duration(rand.Int64N(int64(400*time.Millisecond)))):
		case <-fresh:
			fresh = nil
			d.process.kill()
			d.start()
		case <-consumer.ended:
			t.Fatal("the consumer gave up")
		}
		consumer.kill()
		if published.Load() == events && complete(t, handled) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d published, and not all handled after %d kills", published.Load(), kills)
		}
	}
	publisher.Wait()
	repeated := check(t, handled)
	t.Logf("%d kills of the consumer, %d events were handled again", kills, repeated)
	if kills < 3 || repeated == 0 {
		t.Errorf("the consumer was killed %d times, and nothing came again: the test shows nothing", kills)
	}
	settle(t, d, handled)
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// complete reports whether all events were handled.
func complete(t *testing.T, name string) bool {
	t.Helper()
	seen := map[string]bool{}
	for _, line := range lines(t, name) {
		seen[line] = true
	}
	for i := range events {
		if !seen[id(i)] {
			return false
		}
	}
	return true
}

// check reports what was handled out of order, is another namespace's, or was not verified, and counts what came again. A consumer
// that begins anew begins with what was not acknowledged: after each event comes the one behind it, or one from before.
func check(t *testing.T, name string) (repeated int) {
	t.Helper()
	next := 0
	last := -1
	for n, line := range lines(t, name) {
		var i int
		if _, err := fmt.Sscanf(line, "evt-%04d", &i); err != nil {
			t.Fatalf("line %d: %s", n, line)
		}
		switch {
		case i > next || i > last+1:
			t.Fatalf("line %d: event %d comes after %d, when %d is the first that was not handled", n, i, last, next)
		case i == next:
			next++
		default:
			repeated++
		}
		last = i
	}
	if next != events {
		t.Errorf("%d events were handled", next)
	}
	return repeated
}

// settle lets a consumer that is not killed acknowledge what is left, and sees to it that nothing is pending then.
func settle(t *testing.T, d *dispatcher, handled string) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "PULL_FROM=http://"+d.at, "PULL_INTO="+handled)
	start(t, command)
	for deadline := time.Now().Add(patience); ; {
		pending, delivered := d.count(t, clinicA, "Pending"), d.count(t, clinicA, "Delivered")
		if pending == 0 && delivered == events {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are pending, %d delivered", pending, delivered)
		}
		<-time.After(50 * time.Millisecond)
	}
	check(t, handled)
	if n := d.count(t, clinicB, "Pending"); n != events/10 {
		t.Errorf("%d deliveries of the other namespace are pending, want all %d: nobody pulls them", n, events/10)
	}
}

// TestPythonConsumer: the example in Python takes what a real dispatcher signs.
func TestPythonConsumer(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	d := newDispatcher(t)
	const few = 5
	for i := range few {
		if err := d.publish(t.Context(), clinicA, id(i)); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(python, "-c", `
import sys
from eventflow_pull import pull
from eventflow_receiver import Receiver

hooks = Receiver([sys.argv[2]], {"patient.*": lambda event: None})
pull(hooks, sys.argv[1], "clinic-a", "billing", wait=1)
`, "http://"+d.at, clinicA+"-signs-with-24-bytes-or-more")
	command.Dir = filepath.Join("..", "..", "receivers", "python")
	command.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	start(t, command)
	for deadline := time.Now().Add(patience); d.count(t, clinicA, "Delivered") < few; {
		if time.Now().After(deadline) {
			t.Fatalf("%d are delivered", d.count(t, clinicA, "Delivered"))
		}
		<-time.After(50 * time.Millisecond)
	}
}

// count counts the deliveries of a namespace in a state.
func (d *dispatcher) count(t *testing.T, namespace, state string) int {
	t.Helper()
	response, err := http.Get("http://" + d.at + "/v1/namespaces/" + namespace + "/deliveries?limit=1000&state=" + state) //nolint:forbidigo // a test's
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return len(list.Items)
}
