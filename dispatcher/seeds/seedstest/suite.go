package seedstest

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/seeds"
)

// Run states what an empty Keeper promises.
func Run(t *testing.T, k seeds.Keeper) {
	t.Helper()
	a, b := seeds.Record{Tenant: "clinic-a", Seed: []byte("wrapped a")}, seeds.Record{Tenant: "name/clinic b", Seed: []byte("wrapped b")}
	other := seeds.Record{Tenant: "clinic-a", Seed: []byte("another")}
	step := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	kept := func(want ...seeds.Record) {
		t.Helper()
		got := map[string]string{}
		if err := k.List(t.Context(), func(r seeds.Record) error { got[r.Tenant] = string(r.Seed); return nil }); err != nil {
			t.Errorf("List: %v", err)
		}
		all := map[string]string{}
		for _, r := range want {
			all[r.Tenant] = string(r.Seed)
			if found, err := k.Get(t.Context(), r.Tenant); err != nil || !bytes.Equal(found.Seed, r.Seed) || found.Tenant != r.Tenant {
				t.Errorf("Get(%s): %+v, %v", r.Tenant, found, err)
			}
		}
		if !maps.Equal(all, got) {
			t.Errorf("List gave %v, want %v", got, all)
		}
	}
	_, err := k.Get(t.Context(), "clinic-a")
	step("Get of none", err, seeds.ErrNone)
	step("Replace of none", k.Replace(t.Context(), a, other), seeds.ErrExists)
	step("Delete of none", k.Delete(t.Context(), "clinic-a"), nil)
	kept()
	step("Create", k.Create(t.Context(), a), nil)
	step("Create again", k.Create(t.Context(), other), seeds.ErrExists)
	step("Create b", k.Create(t.Context(), b), nil)
	kept(a, b)
	step("Replace", k.Replace(t.Context(), a, other), nil)
	step("Replace what is not there any more", k.Replace(t.Context(), a, a), seeds.ErrExists)
	kept(other, b)
	stop := errors.New("enough")
	step("List until it fails", k.List(t.Context(), func(seeds.Record) error { return stop }), stop)
	step("Delete", k.Delete(t.Context(), "clinic-a"), nil)
	kept(b)
	step("Create anew", k.Create(t.Context(), a), nil)
	kept(a, b)
	race(t, k)
}

// race creates one tenant's record from many sides: one wins, and it is what all find.
func race(t *testing.T, k seeds.Keeper) {
	t.Helper()
	var wait sync.WaitGroup
	var winners atomic.Int32
	var mu sync.Mutex
	var found []string
	for i := range 8 {
		wait.Go(func() {
			err := k.Create(t.Context(), seeds.Record{Tenant: "raced", Seed: []byte{byte('0' + i)}})
			if err == nil {
				winners.Add(1)
			} else if !errors.Is(err, seeds.ErrExists) {
				t.Errorf("Create: %v", err)
			}
			r, err := k.Get(t.Context(), "raced")
			if err != nil {
				t.Errorf("Get: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, string(r.Seed))
		})
	}
	wait.Wait()
	if slices.Sort(found); winners.Load() != 1 || found[0] != found[len(found)-1] {
		t.Errorf("%d won; found %q", winners.Load(), found)
	}
}
