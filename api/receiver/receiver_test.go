package receiver_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/receiver"
	"github.com/clinikapi/eventflow/api/receiver/receivertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func send(h http.Handler, request *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request)
	return w.Code
}

func newReceiver(t *testing.T, config receiver.Config) *receiver.Receiver {
	t.Helper()
	config.Secrets = []string{receivertest.Secret}
	if config.Observe == nil {
		config.Observe = func(context.Context, receiver.Outcome) {}
	}
	r, err := receiver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var delivery = receivertest.Delivery{Type: "lab.created"}

func TestMemory(t *testing.T) {
	t.Parallel()
	receivertest.Deduplicator(t, receiver.NewMemory(10, time.Hour), "")

	now := time.Unix(0, 0)
	m := receiver.NewMemory(2, time.Hour)
	m.Now = func() time.Time { return now }
	claim := func(key string) receiver.Claim {
		got, err := m.Claim(t.Context(), key, "o", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, key := range []string{"a", "b"} {
		_ = m.Done(t.Context(), key)
	}
	claim("a") // seen now, so b goes first
	_ = m.Done(t.Context(), "c")
	if claim("a") != receiver.Handled || claim("c") != receiver.Handled || claim("b") != receiver.Claimed {
		t.Error("not the least recently seen was forgotten")
	}
	claim("d")
	if _, err := m.Claim(t.Context(), "e", "o", time.Minute); !errors.Is(err, receiver.ErrFull) {
		t.Errorf("a third claim of at most two: %v", err)
	}
	now = now.Add(time.Hour)
	if claim("a") != receiver.Claimed || claim("e") != receiver.Claimed {
		t.Error("what is too old was remembered")
	}
}

// TestWhatFailedIsTriedAgain: only success is recorded.
func TestWhatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	runs := 0
	r := newReceiver(t, receiver.Config{On: receiver.Routes{"*": func(context.Context, receiver.Event) error {
		runs++
		switch runs {
		case 1:
			return errors.New("no")
		case 2:
			panic("no")
		}
		return nil
	}}})
	if got := send(r, delivery.Request(t, "/")); got != 500 {
		t.Errorf("failed: %d", got)
	}
	func() {
		defer func() { _ = recover() }()
		send(r, delivery.Request(t, "/"))
		t.Error("the panic was hidden")
	}()
	for range 2 {
		if got := send(r, delivery.Request(t, "/")); got != 200 {
			t.Errorf("then: %d", got)
		}
	}
	if runs != 3 {
		t.Errorf("%d runs, want 3", runs)
	}
}

func TestConcurrentRepetitionIsNotHandled(t *testing.T) {
	t.Parallel()
	started, proceed, first := make(chan struct{}), make(chan struct{}), make(chan int)
	r := newReceiver(t, receiver.Config{On: receiver.Routes{"*": func(context.Context, receiver.Event) error {
		close(started) // panics if it runs twice
		<-proceed
		return nil
	}}})
	go func() { first <- send(r, delivery.Request(t, "/")) }()
	<-started
	if got := send(r, delivery.Request(t, "/")); got != 409 {
		t.Errorf("a concurrent repetition: %d, want 409", got)
	}
	close(proceed)
	if got := <-first; got != 200 {
		t.Errorf("the first: %d", got)
	}
	if got := send(r, delivery.Request(t, "/")); got != 200 {
		t.Errorf("a later repetition: %d", got)
	}
}

// broken is a Deduplicator that fails in the named call.
type broken struct {
	*receiver.Memory
	in string
}

func (b broken) fail(call string) error {
	switch b.in {
	case call:
		return errors.New("no store")
	case call + " panics":
		panic("no store")
	}
	return nil
}

func (b broken) Claim(ctx context.Context, key, owner string, lease time.Duration) (receiver.Claim, error) {
	if err := b.fail("claim"); err != nil {
		return 0, err
	}
	return b.Memory.Claim(ctx, key, owner, lease)
}

func (b broken) Done(ctx context.Context, key string) error {
	return errors.Join(ctx.Err(), b.fail("done"), b.Memory.Done(ctx, key))
}

// TestABrokenStoreLosesNothing: the handler runs, and the failure is observed.
func TestABrokenStoreLosesNothing(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"claim", "claim panics", "done", "done panics"} {
		runs := 0
		var outcome receiver.Outcome
		r := newReceiver(t, receiver.Config{
			Deduplicator: broken{receiver.NewMemory(1, time.Hour), in},
			Observe:      func(_ context.Context, o receiver.Outcome) { outcome = o },
			On:           receiver.Routes{"*": func(context.Context, receiver.Event) error { runs++; return nil }},
		})
		if got := send(r, delivery.Request(t, "/")); got != 200 || runs != 1 || outcome.StoreErr == nil {
			t.Errorf("%s: status %d, %d runs, observed %v", in, got, runs, outcome.StoreErr)
		}
	}
}

// TestADispatcherThatHangsUp: what its handler finished is recorded.
func TestADispatcherThatHangsUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var outcome receiver.Outcome
	r := newReceiver(t, receiver.Config{
		Deduplicator: broken{receiver.NewMemory(1, time.Hour), ""},
		Observe:      func(_ context.Context, o receiver.Outcome) { outcome = o },
		On:           receiver.Routes{"*": func(context.Context, receiver.Event) error { cancel(); return nil }},
	})
	send(r, delivery.Request(t, "/").WithContext(ctx))
	if outcome.StoreErr != nil || !outcome.Handled {
		t.Errorf("outcome %+v", outcome)
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{0: 200, 204: 204, 302: 302, 404: 404, 410: 500, 500: 500} {
		runs := 0
		r := newReceiver(t, receiver.Config{})
		h := r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			runs++
			if e, ok := receiver.FromContext(request.Context()); !ok || e.Type != delivery.Type || request.ContentLength != int64(len(e.Raw)) {
				t.Errorf("the event is %+v", e)
			}
			if status != 0 {
				w.WriteHeader(status)
			}
		}))
		first, second := send(h, delivery.Request(t, "/")), send(h, delivery.Request(t, "/"))
		if first != want {
			t.Errorf("%d became %d, want %d", status, first, want)
		}
		if handled := want < 300; (runs == 1) != handled || (handled && second != 200) {
			t.Errorf("after %d: %d runs, then %d", status, runs, second)
		}
	}
}

func TestTypedNeverShowsData(t *testing.T) {
	t.Parallel()
	type patient struct{ Age int }
	handler := receiver.Typed(func(context.Context, receiver.Event, patient) error { return nil })
	err := handler(t.Context(), receiver.Event{})
	if err == nil {
		t.Error("no data decoded")
	}
	for _, data := range []string{`{"age":"canary"}`, `{"age":4242.5}`} {
		e := receiver.Event{}
		e.Type, e.Data = "patient.created", []byte(data)
		if err := handler(t.Context(), e); err == nil || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "4242") {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestRotationAndLimits(t *testing.T) {
	t.Parallel()
	handled := receiver.Routes{"*": func(context.Context, receiver.Event) error { return nil }}
	r := newReceiver(t, receiver.Config{On: handled})
	if r.SetSecrets() == nil || r.SetSecrets("short") == nil {
		t.Error("bad secrets were taken")
	}
	if got := send(r, delivery.Request(t, "/")); got != 200 {
		t.Errorf("after a failed change of secrets: %d", got)
	}
	if err := r.SetSecrets("another key for tests, and for nothing else"); err != nil {
		t.Fatal(err)
	}
	if got := send(r, delivery.Request(t, "/")); got != 401 {
		t.Errorf("after the rotation: %d", got)
	}
	for name, config := range map[string]receiver.Config{
		"no secret": {}, "tolerance": {Secrets: []string{receivertest.Secret}, Tolerance: -1}, "bytes": {Secrets: []string{receivertest.Secret}, MaxBytes: -1},
		"scheme": {Secrets: []string{receivertest.Secret}, Scheme: 7}, "nil handler": {Secrets: []string{receivertest.Secret}, On: receiver.Routes{"*": nil}},
	} {
		if _, err := receiver.New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestBodyOnlyRemembersIDAndBody: no signature covers the id, so one delivery under the id of another does not count as it.
func TestBodyOnlyRemembersIDAndBody(t *testing.T) {
	t.Parallel()
	runs := 0
	r := newReceiver(t, receiver.Config{Scheme: receiver.BodyOnly, On: receiver.Routes{"*": func(context.Context, receiver.Event) error { runs++; return nil }}})
	at := time.Now()
	for _, id := range []string{"evt_1", "evt_2", "evt_2"} {
		if got := send(r, receivertest.Delivery{Type: "lab.created", ID: id, At: at}.Request(t, "/")); got != 200 {
			t.Errorf("%d", got)
		}
	}
	if runs != 2 {
		t.Errorf("%d runs, want 2", runs)
	}
}

func TestPlacesAreBounded(t *testing.T) {
	t.Parallel()
	started, proceed, first := make(chan struct{}), make(chan struct{}), make(chan int)
	r := newReceiver(t, receiver.Config{MaxConcurrent: 1, On: receiver.Routes{"*": func(context.Context, receiver.Event) error {
		close(started)
		<-proceed
		return nil
	}}})
	go func() { first <- send(r, delivery.Request(t, "/")) }()
	<-started
	if got := send(r, receivertest.Delivery{Type: "lab.created", DeliveryID: "dlv_2"}.Request(t, "/")); got != 503 {
		t.Errorf("one too many: %d, want 503", got)
	}
	close(proceed)
	if got := <-first; got != 200 {
		t.Errorf("the first: %d", got)
	}
}

// TestNothingElseIsNeeded: a program that imports the packages for producers and consumers depends on this module and on Go alone.
func TestNothingElseIsNeeded(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/clinikapi/eventflow"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.com/clinic\n\ngo 1.26.0\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + strconv.Quote(root) + "\n",
		"main.go": "package main\n\nimport (\n_ \"" + module + "/api/client\"\n_ \"" + module + "/api/event\"\n_ \"" + module + "/api/receiver\"\n_ \"" + module + "/api/signature\"\n)\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, arguments := range [][]string{{"build", "-o", os.DevNull, "."}, {"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "."}} {
		command := exec.CommandContext(t.Context(), "go", arguments...)
		command.Dir, command.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", arguments[0], err, out)
		}
		for dependency := range strings.FieldsSeq(string(out)) {
			if arguments[0] == "list" && dependency != "example.com/clinic" && !strings.HasPrefix(dependency, module+"/api/") {
				t.Errorf("a receiver depends on %s", dependency)
			}
		}
	}
}
