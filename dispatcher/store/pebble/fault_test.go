package pebble_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// faultVariable makes the test binary a victim: "DIR SITE MODE ERRNO".
const faultVariable = "EVENTFLOW_STORE_FAULT"

// victim works on a store whose SITE-th write to the disk fails, and in mode "on" all that follow, until it ends or the
// store ends it. It prints what was acknowledged.
func victim(spec string) {
	var dir, mode string
	var site, errno int64
	if _, err := fmt.Sscan(spec, &dir, &site, &mode, &errno); err != nil {
		panic(err)
	}
	var writes atomic.Int64
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpLock {
			return nil
		}
		if n := writes.Add(1); n == site || mode == "on" && n > site {
			return syscall.Errno(errno)
		}
		return nil
	}))
	if err := work(fs, dir, func(id event.DeliveryID) { fmt.Fprintln(os.Stdout, "ack", id) }); err != nil {
		fmt.Fprintln(os.Stderr, "eventflow:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "writes", writes.Load())
}

// work appends enough to fill tables, and records outcomes of every second delivery.
func work(fs vfs.FS, dir string, acknowledged func(event.DeliveryID)) error {
	s, err := pebble.Open(dir, pebble.Options{FS: fs, FreeReserve: -1})
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("x"), 20<<10)
	for i := range 60 {
		e := store.NewEvent{Fanout: delivery.Fanout{
			Event:         &delivery.Event{Tenant: "clinic-a", ID: fmt.Sprint("evt-", i), Type: "patient.created", Body: body},
			Subscriptions: []*delivery.Subscription{&benchSub},
		}}
		_, fanouts, err := s.Append(context.Background(), []store.NewEvent{e})
		if err != nil {
			return err
		}
		d := fanouts[0].Delivery(&benchSub)
		acknowledged(d.ID)
		if i%2 == 0 {
			o := delivery.Outcome{Delivery: d, State: delivery.Delivered, Attempt: benchAttempt(&d, 200, "")}
			if err := s.Record(context.Background(), []delivery.Outcome{o}); err != nil {
				return err
			}
		}
	}
	return s.Close()
}

// suffer runs a victim in dir, and returns what it acknowledged, the number of its writes if it came to an end, and its
// last words.
func suffer(t *testing.T, dir string, site int64, mode string, errno syscall.Errno) (acks []event.DeliveryID, writes int64, last string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s %d", faultVariable, dir, site, mode, int(errno)))
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Errorf("site %d: %v\n%s", site, err, stderr.String())
	}
	lines := bufio.NewScanner(&stdout)
	for lines.Scan() {
		kind, value, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "ack":
			id, err := event.ParseDeliveryID(value)
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, id)
		case "writes":
			writes, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if (writes == 0) != (err != nil) {
		t.Errorf("site %d: it ended with %v after %d writes", site, err, writes)
	}
	return acks, writes, stderr.String()
}

// TestWriteErrors fails the writes of a process, one site at a time, and audits what it acknowledged.
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	_, writes, _ := suffer(t, t.TempDir(), 1<<40, "once", syscall.EIO)
	if writes < 100 {
		t.Fatalf("%d writes without a fault", writes)
	}
	n := int64(*faults)
	if testing.Short() {
		n /= 4
	}
	var stopped atomic.Int64
	var all sync.WaitGroup
	for _, fault := range []struct {
		mode  string
		errno syscall.Errno
	}{{"on", syscall.ENOSPC}, {"once", syscall.EIO}} {
		all.Go(func() {
			for i := range n {
				site := 1 + i*writes/n
				dir := t.TempDir()
				acks, survived, last := suffer(t, dir, site, fault.mode, fault.errno)
				if survived == 0 {
					stopped.Add(1)
					// Two goroutines may meet the same failure before the process has ended.
					lines := slices.Compact(strings.Split(strings.TrimSuffix(last, "\n"), "\n"))
					if len(lines) != 1 || !strings.HasPrefix(last, "eventflow: ") || !strings.Contains(last, dir) {
						t.Errorf("site %d %s: its last words were not one clear line:\n%s", site, fault.mode, last)
					}
				}
				audit(t, dir, acks)
			}
		})
	}
	all.Wait()
	if stopped.Load() == 0 {
		t.Error("no fault stopped anything")
	}
}

// audit opens the store that a victim left, without faults, and looks for all that it acknowledged.
func audit(t *testing.T, dir string, acks []event.DeliveryID) {
	t.Helper()
	s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1, LockWait: time.Second})
	if err != nil {
		t.Errorf("open what it left: %v", err)
		return
	}
	for _, id := range acks {
		if _, err := s.Get(t.Context(), "clinic-a", id); err != nil {
			t.Errorf("Get(%s) of what was acknowledged: %v", id, err)
		}
		if _, err := s.Event(t.Context(), id.Event); err != nil {
			t.Errorf("Event: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
