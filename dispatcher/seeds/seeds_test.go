package seeds_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ring(t *testing.T, current string, ids ...string) *envelope.KeyRing {
	t.Helper()
	keys := map[string][]byte{}
	for _, id := range append(ids, current) {
		keys[id] = []byte(strings.Repeat(id+"/", 32)[:32])
	}
	r, err := envelope.NewKeyRing(current, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newCache(t *testing.T, keeper seeds.Keeper) *seeds.Cache {
	t.Helper()
	return seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "a"), Store: "store-1"})
}

// sameKeys reports whether both find the same ids.
func sameKeys(a, b *seeds.Keys) bool { return a.SealID("x") == b.SealID("x") }

// TestKeepers: what each Keeper promises.
func TestKeepers(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) seeds.Keeper{
		"memory": func(*testing.T) seeds.Keeper { return &seedstest.Memory{} },
		"folder": func(t *testing.T) seeds.Keeper {
			f, err := seeds.NewFolder(filepath.Join(t.TempDir(), "seeds"))
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seedstest.Run(t, open(t))
		})
	}
}

// TestFolderIsForItsOwner: nobody else may read a seed, also not a wrapped one.
func TestFolderIsForItsOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "seeds")
	f, err := seeds.NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newCache(t, f).ForWriting(t.Context(), "clinic-a"); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil || files != 1 {
		t.Errorf("%d files, %v", files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, strings.Repeat("0", 32)+".seed"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.List(t.Context(), func(seeds.Record) error { return nil }); err == nil {
		t.Error("a damaged file is not reported")
	}
}

// TestOneSeedForATenant: many requests of two processes meet a new tenant at once, and all end up with one seed.
func TestOneSeedForATenant(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	caches := []*seeds.Cache{newCache(t, keeper), newCache(t, keeper)}
	var wait sync.WaitGroup
	found := make([]*seeds.Keys, 32)
	for i := range found {
		wait.Go(func() {
			keys, err := caches[i%2].ForWriting(t.Context(), "clinic-a")
			if err != nil {
				t.Error(err)
			}
			found[i] = keys
		})
	}
	wait.Wait()
	for _, keys := range found {
		if !sameKeys(keys, found[0]) || !keys.Blind {
			t.Fatal("the seeds differ")
		}
	}
}

// TestUnavailableKeeper: known tenants go on, without a call; others fail, and nothing is made up.
func TestUnavailableKeeper(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	c := newCache(t, keeper)
	if _, err := c.ForReading(t.Context(), "clinic-a"); !errors.Is(err, seeds.ErrNone) {
		t.Errorf("reading makes a seed: %v", err)
	}
	before, err := c.ForWriting(t.Context(), "clinic-a")
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("down")
	keeper.Fail(down)
	calls := keeper.Calls()
	if keys, err := c.ForReading(t.Context(), "clinic-a"); err != nil || keys != before || keeper.Calls() != calls {
		t.Errorf("a known tenant: %v, %d calls", err, keeper.Calls()-calls)
	}
	if _, err := c.ForWriting(t.Context(), "clinic-b"); !errors.Is(err, down) {
		t.Errorf("an unknown tenant: %v", err)
	}
	keeper.Fail(nil)
	if _, err := c.ForWriting(t.Context(), "clinic-b"); err != nil {
		t.Errorf("once it is back: %v", err)
	}
}

// hanging is a Keeper that does not answer until its call ends.
type hanging struct {
	seedstest.Memory
	now, most int
	counting  sync.Mutex
}

func (h *hanging) Get(ctx context.Context, _ string) (seeds.Record, error) {
	h.count(1)
	defer h.count(-1)
	<-ctx.Done()
	return seeds.Record{}, ctx.Err()
}

func (h *hanging) count(n int) {
	h.counting.Lock()
	defer h.counting.Unlock()
	h.now += n
	h.most = max(h.most, h.now)
}

// TestHangingKeeper: a call waits no longer than its context, and twice 5 s, and few questions are under way at once.
func TestHangingKeeper(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keeper := &hanging{}
		c := newCache(t, keeper)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ForWriting(ctx, "clinic-0"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		var wait sync.WaitGroup
		begin := time.Now()
		for i := range 100 {
			wait.Go(func() {
				if _, err := c.ForWriting(t.Context(), fmt.Sprint("clinic-", i)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		}
		wait.Wait()
		if most := keeper.most; most != 16 || time.Since(begin) > 10*time.Second {
			t.Errorf("%d questions at once; all took %v", most, time.Since(begin))
		}
	})
}

// TestCacheIsBounded: however many tenants come, so many are kept, and those in use among them.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	c := seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "a"), MaxTenants: 4})
	for i := range 100 {
		for _, tenant := range []string{"busy", fmt.Sprint("clinic-", i)} {
			if _, err := c.ForWriting(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := seeds.Cached(c); n > 8 {
		t.Errorf("%d tenants are kept", n)
	}
	calls := keeper.Calls()
	if _, err := c.ForReading(t.Context(), "busy"); err != nil || keeper.Calls() != calls {
		t.Errorf("the busy tenant was dropped: %v", err)
	}
	if _, err := c.ForReading(t.Context(), "clinic-1"); err != nil || keeper.Calls() != calls+1 {
		t.Errorf("an idle one is asked for again: %v, %d calls", err, keeper.Calls()-calls)
	}
}

// TestRotation: a new key takes the place of the old one while both are there; then the old one can go.
func TestRotation(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	first := seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "2026"), Store: "s"})
	before := map[string]*seeds.Keys{}
	for _, tenant := range []string{"clinic-a", "clinic-b", "clinic-c"} {
		keys, err := first.ForWriting(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		before[tenant] = keys
	}
	first.Use(ring(t, "2027"))
	if got, err := first.Refresh(t.Context()); err != nil || got != (seeds.Refreshed{Tenants: 3, Locked: 3}) {
		t.Errorf("with the new key alone: %+v, %v", got, err)
	}
	first.Use(ring(t, "2027", "2026"))
	for _, want := range []seeds.Refreshed{{Tenants: 3, Rewrapped: 3}, {Tenants: 3}} {
		if got, err := first.Refresh(t.Context()); err != nil || got != want {
			t.Errorf("with both keys: %+v, %v; want %+v", got, err, want)
		}
	}
	after := seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "2027"), Store: "s"})
	for tenant, keys := range before {
		if got, err := after.ForReading(t.Context(), tenant); err != nil || !sameKeys(got, keys) || got.Blind != keys.Blind {
			t.Errorf("%s: %v", tenant, err)
		}
	}
	old := seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "2026"), Store: "s"})
	if _, err := old.ForReading(t.Context(), "clinic-a"); !errors.Is(err, envelope.ErrNoKey) {
		t.Errorf("the old key still opens a seed: %v", err)
	}
}

// TestDelete: a deleted seed is gone here at once, and elsewhere with the next refresh; the next is another.
func TestDelete(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	here, elsewhere := newCache(t, keeper), newCache(t, keeper)
	before, err := here.ForWriting(t.Context(), "clinic-a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.ForReading(t.Context(), "clinic-a"); err != nil {
		t.Fatal(err)
	}
	if err := here.Delete(t.Context(), "clinic-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.ForReading(t.Context(), "clinic-a"); !errors.Is(err, seeds.ErrNone) {
		t.Errorf("here: %v", err)
	}
	if _, err := elsewhere.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.ForReading(t.Context(), "clinic-a"); !errors.Is(err, seeds.ErrNone) {
		t.Errorf("elsewhere: %v", err)
	}
	if after, err := here.ForWriting(t.Context(), "clinic-a"); err != nil || sameKeys(before, after) {
		t.Errorf("the same seed came again, %v", err)
	}
}

// TestKnownTenants: what was stored in the clear is still found by what it was stored under.
func TestKnownTenants(t *testing.T) {
	t.Parallel()
	failure := errors.New("the store is down")
	for name, tc := range map[string]struct {
		known     bool
		err       error
		wantBlind bool
	}{"new": {false, nil, true}, "known": {true, nil, false}, "not to be asked": {false, failure, false}} {
		keeper := &seedstest.Memory{}
		options := seeds.Options{Keeper: keeper, Ring: ring(t, "a"), Known: func(context.Context, string) (bool, error) { return tc.known, tc.err }}
		keys, err := seeds.New(options).ForWriting(t.Context(), "clinic-a")
		if !errors.Is(err, tc.err) || err == nil && keys.Blind != tc.wantBlind {
			t.Errorf("%s: %v", name, err)
		}
		if tc.err != nil {
			continue
		}
		options.Known = nil // another process, later
		if again, err := seeds.New(options).ForReading(t.Context(), "clinic-a"); err != nil || again.Blind != tc.wantBlind {
			t.Errorf("%s, later: %v", name, err)
		}
	}
}

// TestShredder: a seed goes once its namespace was gone for an hour and nothing of it is pending, and not before.
func TestShredder(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	names := map[string]string{"uid-1": "clinic-a", "uid-2": "clinic-b"} // uid-3 has no known name
	c := seeds.New(seeds.Options{Keeper: keeper, Ring: ring(t, "a"), Namespace: func(tenant string) string { return names[tenant] }})
	for _, tenant := range []string{"uid-1", "uid-2", "uid-3"} {
		if _, err := c.ForWriting(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	gone, pending, down := map[string]bool{}, map[string]bool{}, error(nil)
	s := &seeds.Shredder{
		Keeper: keeper, Delete: c.Delete, Now: func() time.Time { return now },
		Gone: func(_ context.Context, namespace, tenant string) (bool, error) {
			if names[tenant] != namespace {
				t.Errorf("%s is asked for as %s", tenant, namespace)
			}
			return gone[tenant], down
		},
		Pending: func(_ context.Context, tenant string) (bool, error) { return pending[tenant], nil },
	}
	for _, step := range []struct {
		what   string
		change func()
		after  time.Duration
		want   int
	}{
		{"both are there", func() {}, 0, 0},
		{"one is gone", func() { gone["uid-1"], gone["uid-3"], pending["uid-1"] = true, true, true }, time.Hour, 0},
		{"not for an hour", func() {}, 59 * time.Minute, 0},
		{"the API server is down", func() { down = errors.New("down") }, time.Hour, 0},
		{"it is back", func() { down = nil }, time.Hour, 0},
		{"an hour later it has something pending", func() {}, time.Hour, 0},
		{"nothing any more", func() { pending["uid-1"] = false }, time.Minute, 1},
		{"the other comes and goes", func() { gone["uid-2"] = true }, time.Hour, 0},
		{"it is there", func() { gone["uid-2"] = false }, time.Hour, 0},
		{"it is gone again", func() { gone["uid-2"] = true }, time.Hour, 0},
		{"for nearly an hour", func() {}, 59 * time.Minute, 0},
		{"for an hour", func() {}, time.Minute, 1},
		{"nothing is left to do", func() {}, 24 * time.Hour, 0},
	} {
		now = now.Add(step.after)
		step.change()
		if got, err := s.Round(t.Context()); got != step.want || !errors.Is(err, down) {
			t.Errorf("%s: %d, %v; want %d", step.what, got, err, step.want)
		}
	}
	if _, err := c.ForReading(t.Context(), "uid-3"); err != nil {
		t.Errorf("a tenant without a known name: %v", err)
	}
	if _, err := c.ForReading(t.Context(), "uid-1"); !errors.Is(err, seeds.ErrNone) {
		t.Errorf("a shredded one: %v", err)
	}
}

// TestShredderLooksAtAll: however many namespaces there are, each has its turn, and a round is bounded.
func TestShredderLooksAtAll(t *testing.T) {
	t.Parallel()
	keeper := &seedstest.Memory{}
	for i := range 250 {
		r := seeds.Record{Tenant: fmt.Sprint("uid-", i), Namespace: fmt.Sprint("clinic-", i), Seed: []byte{1}}
		if err := keeper.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	looks, seen := 0, map[string]bool{}
	s := &seeds.Shredder{Keeper: keeper, Now: time.Now, Gone: func(_ context.Context, _, tenant string) (bool, error) {
		looks++
		seen[tenant] = true
		return false, nil
	}}
	for round := 1; round <= 3; round++ {
		if _, err := s.Round(t.Context()); err != nil || looks != 100*round {
			t.Errorf("%d looks, %v", looks, err)
		}
	}
	if len(seen) != 250 {
		t.Errorf("%d were looked at", len(seen))
	}
}
