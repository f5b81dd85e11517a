package main

import (
	"syscall"
	"testing"
	"time"
)

// leases is how long after its end a killed dispatcher's work may take to go on at another.
const leases = 10 * time.Second

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
