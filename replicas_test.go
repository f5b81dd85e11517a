package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	engine "github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// leases is how long after its end a killed dispatcher's work may take to go on at another.
	leases = 10 * time.Second
	// handOver is how late a delivery may be because a dispatcher is stopped in good order.
	handOver = 2 * time.Second
)

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

// TestReplicaStopped stops one of three dispatchers in good order, under load, while one of its attempts hangs for
// longer than a lease lasts. All else is handed over at once, and that subscription once its attempt ended.
func TestReplicaStopped(t *testing.T) {
	t.Parallel()
	hanging := aloneInItsShard("hanging")
	f := newFleet(t, 3, subscribe(hanging, "patient.deleted"))
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	end := sync.OnceFunc(func() { close(finish) })
	t.Cleanup(end)
	f.endpoint.answers(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, hanging) {
			select {
			case begun <- struct{}{}: // the first one
				<-finish
			default:
			}
		}
	})
	publish := func(id string) {
		t.Helper()
		if status, answer := f.pick(0).post(`{"id":"` + id + `","type":"patient.deleted","data":{}}`); status != http.StatusAccepted {
			t.Fatalf("published %s: %d %s", id, status, answer)
		}
	}
	eventually(t, "the work is shared", func() bool {
		return owned(f.pick(0)) >= 21 && owned(f.pick(1)) >= 21 && owned(f.pick(2)) >= 21
	})
	publish("hanging-1")
	eventually(t, "the attempt hangs", func() bool { return len(begun) == 1 })
	victim := f.pick(0)
	for n := 1; victim.gauge("eventflow_delivery_in_flight") != 1; n++ {
		victim = f.pick(n)
	}
	load := f.traffic(8)
	load.flows(300)

	from := load.count()
	if err := victim.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	load.flows(5)
	f.forget(victim)
	eventually(t, "all but one shard are the others'", func() bool { return owned(f.all()...) == engine.Shards-1 })
	publish("hanging-2")
	for lease := time.Now().Add(leases); time.Now().Before(lease); {
		load.flows(100)
	}
	if n := owned(f.all()...); n != engine.Shards-1 || len(f.endpoint.to(hanging)) != 1 {
		t.Errorf("the others work on %v shards, and %d attempts were made, while one hangs", n, len(f.endpoint.to(hanging)))
	}
	end()
	finished := time.Now()
	eventually(t, "the other event comes", func() bool { return len(f.endpoint.to(hanging)) > 1 })
	after := time.Since(finished)
	<-victim.ended
	if victim.err != nil {
		t.Errorf("it ended with %v", victim.err)
	}
	load.audit()
	if t.Failed() {
		t.Logf("its log:\n%s", &victim.log)
	}
	if n := load.repeated(); n > 0 || len(f.endpoint.to(hanging)) != 2 {
		t.Errorf("%d attempts were made twice; %d of two events hung", n, len(f.endpoint.to(hanging)))
	}
	late := load.latest(from)
	t.Logf("deliveries were at most %s late; the other event came %s after the attempt that hung", late, after)
	if late > handOver || after > handOver {
		t.Errorf("deliveries were up to %s late, want at most %s", max(late, after), handOver)
	}
}

// aloneInItsShard is a name for a subscription whose shard has none of the fleet's.
func aloneInItsShard(name string) string {
	taken := map[int]bool{}
	for _, resource := range event.Resources {
		taken[engine.ShardOf(event.NewSubscriptionKey("clinic-a/"+resource))] = true
	}
	for n := 1; ; n++ {
		candidate := fmt.Sprintf("%s-%d", name, n)
		if !taken[engine.ShardOf(event.NewSubscriptionKey("clinic-a/"+candidate))] {
			return candidate
		}
	}
}
