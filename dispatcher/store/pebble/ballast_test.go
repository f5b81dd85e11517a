package pebble_test

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// eventually expects something within a bound.
func eventually(t testing.TB, bound time.Duration, holds func() bool) {
	t.Helper()
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-timeout.C:
			t.Fatalf("not within %s", bound)
		}
	}
}

func diskOf(fs *vfs.MemFS, available uint64) {
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: available, TotalBytes: 1 << 30})
}

func hasBallast(fs vfs.FS) bool {
	_, err := fs.Stat("data/BALLAST")
	return err == nil
}

// figures are the values of a registry's metrics without labels.
func figures(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		all[strings.TrimPrefix(f.GetName(), "eventflow_store_")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return all
}

// TestBallast: it is made where there is room, given up where next to nothing is left, and made again.
func TestBallast(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	diskOf(fs, 1<<29)
	registry := prometheus.NewRegistry()
	s, err := pebble.Open("data", pebble.Options{FS: fs, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	if got := figures(t, registry); !hasBallast(fs) || got["ballast_bytes"] < 1<<20 || got["disk_reserve_bytes"] != float64(1<<30/10) || got["disk_free_bytes"] != 1<<29 {
		t.Errorf("figures of a new store: %v", got)
	}
	diskOf(fs, 100)
	s.CheckSpace()
	if got := figures(t, registry); hasBallast(fs) || got["ballast_bytes"] != 0 || got["full"] != 1 {
		t.Errorf("figures of a full one: %v", got)
	}
	diskOf(fs, 1<<29)
	s.CheckSpace()
	if got := figures(t, registry); !hasBallast(fs) || got["full"] != 0 {
		t.Errorf("figures of one that has space again: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := metricsLeft(t, registry); got != 0 {
		t.Errorf("%d metrics of a closed store", got)
	}
}

func metricsLeft(t *testing.T, r *prometheus.Registry) int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return len(families)
}

// TestOpenWithoutRoom: a store that finds no room to start in says so, and changes nothing.
func TestOpenWithoutRoom(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	diskOf(fs, 1<<29)
	s, err := pebble.Open("data", pebble.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	diskOf(fs, 0)
	for range 20 {
		_, err := pebble.Open("data", pebble.Options{FS: fs})
		if !errors.Is(err, store.ErrFull) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "data") {
			t.Fatalf("Open gave %v", err)
		}
	}
	if hasBallast(fs) {
		t.Error("the ballast was kept")
	}
	if files, err := fs.List("data"); err != nil || len(files) > 8 {
		t.Errorf("%d files: %v, %v", len(files), files, err)
	}
	diskOf(fs, 1<<29)
	if s, err = pebble.Open("data", pebble.Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBallastSavesAWrite: the first write that finds no space gives up the ballast, and succeeds.
func TestBallastSavesAWrite(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem()
	diskOf(mem, 1<<29)
	var mu sync.Mutex
	armed := false
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".log") && hasBallast(mem) {
			return syscall.ENOSPC
		}
		return nil
	}))
	s, err := pebble.Open("data", pebble.Options{FS: fs, Fatal: func(err error) { t.Errorf("it ended: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	if !hasBallast(mem) {
		t.Fatal("there is no ballast")
	}
	mu.Lock()
	armed = true
	mu.Unlock()
	_, fanouts, err := s.Append(t.Context(), benchEvents(10))
	if err != nil || hasBallast(mem) {
		t.Errorf("Append gave %v; the ballast is there: %t", err, hasBallast(mem))
	}
	for _, d := range storetest.Deliveries(fanouts) {
		if _, err := s.Get(t.Context(), "clinic-a", d.ID); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestHistoryIsDroppedOutLoud: when space is short, delivered history goes, oldest first, with a line in the log and a
// count; what failed and what is pending stays.
func TestHistoryIsDroppedOutLoud(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	diskOf(fs, 1<<29)
	var lines []string
	var mu sync.Mutex
	logger := logr.New(funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, args)
	}, funcr.Options{}).GetSink())
	registry := prometheus.NewRegistry()
	clock := storetest.NewClock(time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC))
	s, err := pebble.Open("data", pebble.Options{FS: fs, Now: clock.Now, Registerer: registry, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	states := []delivery.State{delivery.Delivered, delivery.Failed, delivery.Cancelled, delivery.Pending}
	var hours [3][]delivery.PendingDelivery
	for i := range hours {
		_, fanouts, err := s.Append(t.Context(), benchEvents(len(states)))
		if err != nil {
			t.Fatal(err)
		}
		hours[i] = storetest.Deliveries(fanouts)
		for j, state := range states[:3] {
			d := hours[i][j]
			if err := s.Record(t.Context(), []delivery.Outcome{{Delivery: d, State: state, Attempt: benchAttempt(&d, 200, "")}}); err != nil {
				t.Fatal(err)
			}
		}
		clock.Advance(time.Hour)
	}
	left := func() (n [3]int) {
		for i := range hours {
			for j, d := range hours[i] {
				r, err := s.Get(t.Context(), "clinic-a", d.ID)
				switch {
				case err == nil && r.State == states[j]:
					n[i]++
				case j > 0 || !errors.Is(err, store.ErrNotFound):
					t.Errorf("a delivery that was %s is %s, %v", states[j], r.State, err)
				}
			}
		}
		return n
	}
	s.CheckSpace()
	if got := left(); got != [3]int{4, 4, 4} {
		t.Errorf("with enough space %v is left", got)
	}
	diskOf(fs, 1<<20)
	order := [][3]int{{4, 4, 4}, {3, 4, 4}, {3, 3, 4}, {3, 3, 3}}
	eventually(t, 20*time.Second, func() bool {
		s.CheckSpace()
		got := left()
		for len(order) > 0 && got != order[0] {
			order = order[1:]
		}
		return len(order) == 1
	})
	if len(order) == 0 {
		t.Errorf("it did not go in order: %v is left", left())
	}
	if got := figures(t, registry)["history_dropped_early_total"]; got != 3 {
		t.Errorf("%v hours were counted", got)
	}
	mu.Lock()
	defer mu.Unlock()
	said := 0
	for _, line := range lines {
		if strings.Contains(line, "Space is short: delivered deliveries are dropped before their time") {
			said++
		}
	}
	if said != 3 {
		t.Errorf("it was said %d times:\n%s", said, strings.Join(lines, "\n"))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
