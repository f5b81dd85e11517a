package simulation

import (
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds     = flag.Int("seeds", 32, "worlds to run")
	firstSeed = flag.Uint64("seed", 1, "seed of the first world")
	days      = flag.Int("days", 2, "days that each world lasts, before all comes to rest")
	runFor    = flag.Duration("for", 0, "run worlds for that long, instead of a number of them")
	shrinkFor = flag.Duration("shrink", time.Minute, "how long to look for a shorter history that breaks the same promise")
	fullLog   = flag.Bool("history", false, "show the whole history of a world that fails, and not only the shorter one")
)

// outcome is what came of a world.
type outcome struct {
	found          []string // violations
	log            []string
	lasted, took   time.Duration
	acked, arrived int
	starts, users  int
}

// first is the first violation, "" if there was none.
func (o *outcome) first() string {
	if len(o.found) == 0 {
		return ""
	}
	return o.found[0]
}

// stuckAfter is for how long, of real time, a world's time may stand still.
const stuckAfter = 2 * time.Minute

// guard ends the program when the time of a world stands still: goroutines wait for a lock whose holder waits for time to pass,
// and no timeout within a bubble ends that. What it returns ends the guard.
func guard(h *history, beats *atomic.Int64) (end func()) {
	done := make(chan struct{})
	go func() {
		for before := int64(-1); ; {
			select {
			case <-done:
				return
			case <-time.After(stuckAfter):
			}
			now := beats.Load()
			if now == before {
				debug.SetTraceback("all")
				panic(fmt.Sprintf("seed %d, %d days: the world's time stands still", h.seed, h.days))
			}
			before = now
		}
	}()
	return func() { close(done) }
}

// live runs a history in a bubble.
func live(t *testing.T, h *history, plant planted) (o outcome) {
	t.Helper()
	folder, began := t.TempDir(), time.Now()
	var beats atomic.Int64
	defer guard(h, &beats)()
	defer func() { o.took = time.Since(began) }()
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(h, plant, folder)
		if err != nil {
			t.Fatal(err)
		}
		w.beats = &beats
		if err := w.run(); err != nil {
			w.violated("%v", err)
		}
		o = outcome{found: w.found, log: w.log, lasted: time.Since(w.begin), acked: w.model.acked, arrived: w.model.arrived, starts: w.machine.number, users: w.model.operated}
	})
	return o
}

// sums are over all worlds.
type sums struct {
	mu                                    sync.Mutex
	worlds, acked, arrived, starts, users int
	lasted                                time.Duration
	failed                                []uint64
}

func (s *sums) add(seed uint64, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worlds++
	s.acked += o.acked
	s.arrived += o.arrived
	s.starts += o.starts
	s.users += o.users
	s.lasted += o.lasted
	if len(o.found) > 0 {
		s.failed = append(s.failed, seed)
	}
}

// TestSimulation: in every world, all promises are kept.
func TestSimulation(t *testing.T) {
	began := time.Now()
	var all sums
	t.Run("worlds", func(t *testing.T) {
		workers := make(chan uint64)
		for range 2 {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for seed := range workers {
					one(t, seed, &all)
				}
			})
		}
		go func() {
			defer close(workers)
			for seed := *firstSeed; enough(seed, began); seed++ {
				workers <- seed
			}
		}()
	})
	simulated, took := all.lasted.Hours()/24, time.Since(began)
	t.Logf("%d worlds, %.0f days, %.0f a minute: %d events acknowledged, %d attempts, %d starts of a dispatcher, %d deliveries changed by users",
		all.worlds, simulated, simulated/took.Minutes(), all.acked, all.arrived, all.starts, all.users)
	if len(all.failed) > 0 {
		explain(t, slices.Min(all.failed))
	}
}

// enough reports whether the world of a seed is to be run.
func enough(seed uint64, began time.Time) bool {
	if *runFor > 0 {
		return time.Since(began) < *runFor
	}
	return seed < *firstSeed+uint64(*seeds)
}

// one runs the world of a seed.
func one(t *testing.T, seed uint64, all *sums) {
	t.Helper()
	h := newHistory(seed, *days)
	o := live(t, h, noBug)
	all.add(seed, o)
	if len(o.found) == 0 {
		return
	}
	t.Errorf("seed %d breaks a promise; again: go test ./test/simulation -run '^TestSimulation$' -seed %d -seeds 1 -days %d\n%s\n%s",
		seed, seed, *days, strings.Join(o.found, "\n"), strings.Join(o.log, "\n"))
	if *fullLog {
		t.Logf("its history:\n%v", h)
	}
}

// explain runs a world again that failed, and shows how little of it is needed.
func explain(t *testing.T, seed uint64) {
	t.Helper()
	h := newHistory(seed, *days)
	fails := func(h *history) string {
		o := live(t, h, noBug)
		return o.first()
	}
	first := fails(h)
	if first == "" {
		t.Logf("seed %d keeps all promises when it is run again: it depends on the order in which goroutines run", seed)
		return
	}
	small := shrink(h, promise(first), fails, time.Now().Add(*shrinkFor))
	t.Logf("seed %d, %d steps of %d:\n%v%s", seed, len(small.steps), len(h.steps), small, fails(small))
}

// TestPlantedBugs: a bug of each kind is found within a few worlds.
func TestPlantedBugs(t *testing.T) {
	for name, tc := range map[string]struct {
		bug  planted
		want []string
	}{
		"acknowledged before synced": {earlyAck, []string{"lost", "doubled", "late", "order"}},
		"a lease kept too long":      {keptLease, []string{"late"}},
		"a cancel lost":              {lostCancel, []string{"cancelled"}},
		"a replacement lost":         {lostReplace, []string{"replaced", "cancelled"}},
		"a tenant's key mixed up":    {mixedKey, []string{"crossed"}},
		"an attempt never made":      {lostAttempt, []string{"lost", "late", "stuck"}},
		"an outcome never written":   {lostOutcome, []string{"repeated", "counts", "stuck"}},
		"a repetition accepted":      {doubled, []string{"doubled"}},
		"an order not kept":          {unordered, []string{"order"}},
		"a plan too early":           {hasty, []string{"early"}},
		"a filter not applied":       {unfiltered, []string{"unasked"}},
		"a removal not heard of":     {undeleted, []string{"deleted", "unasked"}},
		"a right not asked for":      {openDoor, []string{"trespassed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 20
			for seed := uint64(1); seed <= most; seed++ {
				o := live(t, newHistory(seed, *days), tc.bug)
				if len(o.found) == 0 {
					continue
				}
				t.Logf("seed %d, after %v: %s", seed, o.took.Round(time.Millisecond), o.first())
				if !slices.Contains(tc.want, promise(o.first())) {
					t.Errorf("found as %q, want one of %q", promise(o.first()), tc.want)
				}
				return
			}
			t.Errorf("not found in %d worlds", most)
		})
	}
}

// TestShrink: what has nothing to do with a failure is left out.
func TestShrink(t *testing.T) {
	h := newHistory(1, 1)
	bad := []step{h.steps[3], h.steps[len(h.steps)/2], h.steps[len(h.steps)-1]}
	fails := func(h *history) string {
		for _, s := range bad {
			if !slices.Contains(h.steps, s) {
				return "at 1s: other: it fails otherwise"
			}
		}
		return "at 1s: lost: an event"
	}
	small := shrink(h, "lost", fails, time.Now().Add(time.Minute))
	if !slices.Equal(small.steps, bad) {
		t.Errorf("%d of %d steps are left, want the 3 that matter", len(small.steps), len(h.steps))
	}
}
