package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// runControl serves on an address what answers every publish at once: net/http as it is, without any protection. What a
// flood does to it is what the machine and the bench do, not the dispatcher.
func runControl(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("control wants an address")
	}
	raiseDescriptors(wantDescriptors)
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	return serveHTTP(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answerJSON(w, http.StatusAccepted, struct{}{})
	}))
}

// control measures publishes to the control without and during an attack. It has the dispatcher's limit of memory.
func (b *bench) control(ctx context.Context, siege siege, addresses int) (with, without wellness, err error) {
	self, err := os.Executable()
	if err != nil {
		return with, without, err
	}
	address, err := freeAddress("127.0.1.1")
	if err != nil {
		return with, without, err
	}
	bound := &limit{parent: b.cgroup, bytes: memoryLimit}
	cmd := exec.CommandContext(ctx, self, "control", address)
	cmd.Env, cmd.Stderr = os.Environ(), os.Stderr
	if err := bound.start(cmd); err != nil {
		return with, without, err
	}
	p := &process{pid: cmd.Process.Pid, cmd: cmd}
	defer func() {
		_ = p.kill()
		bound.end()
	}()
	if err := answering(ctx, address); err != nil {
		return with, without, err
	}
	if without, err = b.publishTo(ctx, address, 50, b.spell(20*time.Second, 2*time.Second)); err != nil {
		return with, without, err
	}
	f, err := b.startFlood(ctx, siege.attack(b, address, addresses))
	if err != nil {
		return with, without, err
	}
	err = pause(ctx, b.spell(5*time.Second, 2*time.Second)) // the attackers need a moment to get in
	if err == nil {
		with, err = b.publishTo(ctx, address, 50, b.spell(30*time.Second, 3*time.Second))
	}
	return with, without, errors.Join(err, f.stop(nil))
}

// answering waits until somebody listens on an address.
func answering(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := dial("", address)
		if err == nil {
			return conn.Close()
		}
		if pause(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("the control did not start: %w", err)
		}
	}
}

// publishTo publishes at a steady rate to what delivers nothing.
func (b *bench) publishTo(ctx context.Context, address string, perSecond float64, duration time.Duration) (w wellness, err error) {
	l := newLoad(plan{Run: b.nextRun(), Events: max(1, int(perSecond*duration.Seconds())), Groups: 1, Fan: 1}, address, 32, 1)
	l.first, l.stubborn, l.timeout = healthyGroup, true, time.Minute
	limited, cancel := context.WithTimeout(ctx, duration+lateAfter)
	defer cancel()
	if err := l.openLoop(limited, perSecond); err != nil && ctx.Err() != nil {
		return w, err
	}
	w.published(l)
	b.progress("  control: publish p50 %.1f ms, p99 %.1f ms; %d refused, %d broken", w.Publish50, w.Publish99, w.Refused, w.Broken)
	return w, nil
}

// published sets how the publishes of a load fared.
func (w *wellness) published(l *load) {
	l.answers.Lock()
	answers := quantilesOf(l.answers.all)
	l.answers.Unlock()
	w.Publish50, w.Publish99 = answers.P50, answers.P99
	w.Broken = int(l.broken.Load())
	w.Refused = int(l.refused.Load()) - w.Broken
	if answers.Count == 0 {
		w.Publish50 = float64(lateAfter.Milliseconds())
		w.Publish99 = w.Publish50
	}
}

// idleGroup makes a cgroup whose processes run only on what others leave of the processors: an attacker has a machine of
// his own. What the kernel does for his packets on behalf of the dispatcher still counts.
func idleGroup(parent string) (folder string, err error) {
	folder, err = os.MkdirTemp(parent, "eventflow-flood-")
	if err != nil {
		return "", fmt.Errorf("make a cgroup: %w", err)
	}
	if err := writeGroup(folder, "cpu.idle", "1"); err != nil {
		return "", errors.Join(err, os.Remove(folder))
	}
	return folder, nil
}

// join moves a process to a cgroup.
func (p *process) join(folder string) error {
	return writeGroup(folder, "cgroup.procs", strconv.Itoa(p.pid))
}
