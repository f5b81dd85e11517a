package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestSlowBodiesHoldLittle has clients that announce much and send little.
func TestSlowBodiesHoldLittle(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.MaxInFlightBytes = 1 })
	if f.memory.budget.Limit() != minMemory {
		t.Fatalf("the bound is %d", f.memory.budget.Limit())
	}
	var clients sync.WaitGroup
	opened := make(chan struct{})
	const slow = 100
	for range slow {
		g := &gate{first: strings.NewReader("["), waits: make(chan struct{}), opened: opened}
		r, err := http.NewRequest(http.MethodPost, "/v1/namespaces/clinic-a/events", g)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = maxRequestBytes
		r.Header.Set("Content-Type", "application/json")
		clients.Go(func() { f.ServeHTTP(discardAnswer{}, r) })
		<-g.waits
	}
	if used := f.memory.budget.Used(); used != slow*accountStep {
		t.Errorf("%d clients hold %d bytes", slow, used)
	}
	if got, err := testutil.GatherAndCount(f.registry, "eventflow_ingest_inflight_bytes"); err != nil || got != 1 {
		t.Errorf("the gauge counts %d: %v", got, err)
	}
	close(opened)
	clients.Wait()
	if used := f.memory.budget.Used(); used != 0 {
		t.Errorf("%d bytes stay charged", used)
	}
}

// TestShares: a namespace over its share is refused and told to wait, another is not.
func TestShares(t *testing.T) {
	t.Parallel()
	shared := budget.New(minMemory)
	f := newFixture(t, func(o *Options) { o.Memory = shared })
	for shared.Take("clinic-a", 1<<20) {
	}
	event := `{"type":"patient.created","data":{"a":"` + strings.Repeat("a", 900_000) + `"}}`
	w := f.publish(event)
	wantProblem(t, w, overloaded, "namespace", "share")
	if after, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || after < 2 {
		t.Errorf("a namespace over its share is to come again after %q", w.Header().Get("Retry-After"))
	}
	if w := f.do("POST", "/v1/namespaces/clinic-b/events", event, "Content-Type: application/json"); w.Code != http.StatusAccepted {
		t.Errorf("another namespace: %d %s", w.Code, w.Body)
	}
	for i := 0; shared.Used() < shared.Limit()-100_000; i++ {
		shared.Take(fmt.Sprint("other-", i), 50_000)
	}
	w = f.do("POST", "/v1/namespaces/clinic-b/events", event, "Content-Type: application/json")
	wantProblem(t, w, overloaded, "this dispatcher")
	if after := w.Header().Get("Retry-After"); after != "1" {
		t.Errorf("a namespace that holds nothing is to come again after %q", after)
	}
}

// TestNeverEnough: what would need more than a namespace ever gets is not to be sent again.
func TestNeverEnough(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.Memory = budget.New(1 << 20) })
	wantProblem(t, f.publish(`{"type":"patient.created","data":{"a":"`+strings.Repeat("a", 600_000)+`"}}`), tooLarge, "fewer events")
	if used := f.memory.budget.Used(); used != 0 {
		t.Errorf("%d bytes stay charged", used)
	}
}

// TestTooManyDeliveries refuses what a store would have to commit as one, and would not.
func TestTooManyDeliveries(t *testing.T) {
	t.Parallel()
	var subscriptions []string
	for i := range maxRequestDeliveries/maxRequestEvents + 1 {
		subscriptions = append(subscriptions, fmt.Sprintf("clinic-a/sub-%d=*", i))
	}
	table := newTable(t, subscriptions...)
	f := newFixture(t, func(o *Options) { o.Routes = func() *routing.Table { return table } })
	one := `{"type":"patient.created","data":{}},`
	wantProblem(t, f.publish("["+strings.TrimSuffix(strings.Repeat(one, maxRequestEvents), ",")+"]"), tooLarge, "500000", "fewer events")
	if stored := len(f.store.stored()); stored != 0 {
		t.Errorf("%d events are stored", stored)
	}
	if w := f.publish("[" + strings.TrimSuffix(strings.Repeat(one, 10), ",") + "]"); w.Code != http.StatusAccepted {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	events := f.store.stored()
	for i := range events {
		if &events[i].Subscriptions[0] != &events[0].Subscriptions[0] {
			t.Fatal("events of one type hold their subscriptions each for itself")
		}
	}
	if used := f.memory.budget.Used(); used != 0 {
		t.Errorf("%d bytes stay charged", used)
	}
}

// trickle gives a body a few bytes at a time, and looks at what is charged.
type trickle struct {
	*testing.T
	rest   string
	given  int
	random *rand.Rand
	budget *budget.Budget
}

func (r *trickle) Read(b []byte) (int, error) {
	if used := r.budget.Used(); used > 2*int64(r.given)+8<<10 {
		r.Errorf("%d bytes are charged for %d", used, r.given)
	}
	if r.rest == "" {
		return 0, io.EOF
	}
	n := copy(b, r.rest[:min(len(r.rest), 1+r.random.IntN(20_000))])
	r.rest, r.given = r.rest[n:], r.given+n
	return n, nil
}

func TestBodiesAreChargedAsTheyCome(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, firstChunk - 1, firstChunk, firstChunk + 1, 3 * firstChunk, 3*firstChunk + 1, 100_000, 1 << 20, 1<<20 + 1, 3_333_333, maxRequestBytes} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			text := make([]byte, size)
			for i := range text {
				text[i] = byte('a' + random.IntN(26))
			}
			memory := newHoldings(nil, 1<<30)
			b := bodyBuffer{account: account{memory: memory, tenant: "clinic-a"}}
			for range 2 {
				body := &trickle{T: t, rest: string(text), random: random, budget: memory.budget}
				r, err := http.NewRequest(http.MethodPost, "/", body)
				if err != nil {
					t.Fatal(err)
				}
				if err := b.read(r, maxRequestBytes); err != nil || !bytes.Equal(b.bytes, text) {
					t.Fatalf("read %d of %d bytes, %v", len(b.bytes), size, err)
				}
				if used := memory.budget.Used(); used > 2*int64(size)+18*accountStep {
					t.Errorf("%d bytes are charged for %d", used, size)
				}
				b.close()
				if used := memory.budget.Used() + memory.inFlight.Load(); used != 0 {
					t.Errorf("%d bytes stay charged", used)
				}
			}
		})
	}
}

// TestBodyBufferKeepsToBudget refuses to grow before it does.
func TestBodyBufferKeepsToBudget(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		held     int64 // by others, of 1 MiB
		body     int
		wantKind *kind
	}{
		"fits":          {1<<20 - accountStep, firstChunk, nil},
		"nothing fits":  {1<<20 - accountStep + 1, 1, overloaded},
		"does not grow": {1<<20 - 2*accountStep + 1, firstChunk + 1, overloaded},
		"does not join": {1<<20 - 2*accountStep, firstChunk + 1, overloaded},
		"never fits":    {0, 600_000, tooLarge},
		"too large":     {0, 700_001, tooLarge},
	} {
		memory := &holdings{budget: budget.New(1 << 20)}
		for left := tc.held; left > 0; left-- {
			others := min(left, 4<<10)
			memory.budget.Take(fmt.Sprint(left), others)
			left -= others - 1
		}
		b := bodyBuffer{account: account{memory: memory, tenant: "clinic-a"}}
		r, err := http.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", tc.body)))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = -1
		err = b.read(r, 700_000)
		if p, _ := errors.AsType[*problem](err); (err != nil) != (tc.wantKind != nil) || err != nil && p.kind != tc.wantKind {
			t.Errorf("%s: %v", name, err)
		}
		b.close()
		if used := memory.budget.Held("clinic-a"); used != 0 {
			t.Errorf("%s: %d bytes stay charged", name, used)
		}
	}
}
