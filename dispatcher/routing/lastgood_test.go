package routing

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/dispatcher/envelope"
)

// savedTable is an index and the shards it names.
func savedTable(t testing.TB, revision int64, texts map[int]string) (*Index, map[int][]byte) {
	t.Helper()
	index, shards := &Index{Revision: revision, Layout: Small, Shards: map[int]string{}}, map[int][]byte{}
	for i, text := range texts {
		shards[i] = []byte(text)
		index.Shards[i] = Hash(shards[i])
	}
	return index, shards
}

// getter serves shards and counts how many were asked for.
func getter(shards map[int][]byte, asked *int) func(int) ([]byte, error) {
	return func(i int) ([]byte, error) {
		*asked++
		return shards[i], nil
	}
}

func TestLastGoodRoundTrip(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "routes")
	l := NewLastGood(dir)
	if _, _, err := l.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v of nothing", err)
	}
	asked := 0
	index, shards := savedTable(t, 1, map[int]string{0: "a", 7: "b", 63: "c"})
	if err := l.Save(index, getter(shards, &asked)); err != nil {
		t.Fatal(err)
	}
	index, shards = savedTable(t, 2, map[int]string{0: "a", 7: "changed"})
	if err := l.Save(index, getter(shards, &asked)); err != nil {
		t.Fatal(err)
	}
	if asked != 4 {
		t.Errorf("%d shards were written, want 3 and then the one that changed", asked)
	}
	gotIndex, gotShards, err := NewLastGood(dir).Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(index, gotIndex) + cmp.Diff(shards, gotShards); diff != "" {
		t.Error(diff)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("%d files are left, want the index and two shards: %v", len(files), files)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", file.Name(), info.Mode(), err)
		}
	}
}

func TestLastGoodThatCouldNotBeSavedKeepsTheOneBefore(t *testing.T) {
	t.Parallel()
	l, asked := NewLastGood(t.TempDir()), 0
	before, shards := savedTable(t, 1, map[int]string{0: "a"})
	if err := l.Save(before, getter(shards, &asked)); err != nil {
		t.Fatal(err)
	}
	index, shards := savedTable(t, 2, map[int]string{0: "changed", 1: "b"})
	away := errors.New("away")
	for name, get := range map[string]func(int) ([]byte, error){
		"failing": func(i int) ([]byte, error) {
			if i == 1 {
				return nil, away
			}
			return shards[i], nil
		},
		"other content": func(int) ([]byte, error) { return []byte("changed"), nil },
	} {
		if err := l.Save(index, get); err == nil {
			t.Errorf("%s: saved", name)
		}
		got, _, err := l.Load()
		if err != nil || got.Revision != 1 {
			t.Errorf("%s: got %v, %v; want the table before", name, got, err)
		}
	}
	if err := l.Save(index, getter(shards, &asked)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := l.Load(); err != nil || got.Revision != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLastGoodTellsDamage(t *testing.T) {
	t.Parallel()
	overwrite := func(pattern, text string) func(dir string) error {
		return func(dir string) error {
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) != 1 {
				return errors.Join(err, errors.New("want one file"))
			}
			return os.WriteFile(names[0], []byte(text), 0o600)
		}
	}
	for name, tc := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"shard":         {overwrite("shard-07-*", "c"), "shard 7 is damaged"},
		"shard cut off": {overwrite("shard-07-*", ""), "shard 7 is damaged"},
		"index":         {overwrite("index", strings.Repeat("0", 64)+"\n{}"), "index is damaged"},
		"empty index":   {overwrite("index", ""), "index is damaged"},
		"later format":  {overwrite("index", Hash([]byte(`{"format":2}`))+"\n"+`{"format":2}`), "format 2"},
		"missing shard": {func(dir string) error {
			names, err := filepath.Glob(filepath.Join(dir, "shard-07-*"))
			return errors.Join(err, os.Remove(names[0]))
		}, "shard 7 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, asked := t.TempDir(), 0
			index, shards := savedTable(t, 1, map[int]string{7: "b"})
			l := NewLastGood(dir)
			if err := l.Save(index, getter(shards, &asked)); err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Load(); err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v; want %q", err, tc.want)
			}
			if err := l.Save(index, getter(shards, &asked)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Load(); err != nil {
				t.Errorf("saving again did not repair it: %v", err)
			}
		})
	}
}

// TestLastGoodIsEncrypted: the table is in no file in the clear, also one that was there before; an earlier key is enough to
// read it, and after Reseal only the current one is needed.
func TestLastGoodIsEncrypted(t *testing.T) {
	t.Parallel()
	ring := func(current string, ids ...string) *envelope.KeyRing {
		keys := map[string][]byte{}
		for _, id := range append(ids, current) {
			keys[id] = []byte(strings.Repeat(id, 32)[:32])
		}
		r, err := envelope.NewKeyRing(current, keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	dir := t.TempDir()
	index, shards := savedTable(t, 1, map[int]string{0: "MARKER-a", 7: "MARKER-b"})
	if err := NewLastGood(dir).Save(index, getter(shards, new(int))); err != nil {
		t.Fatal(err)
	}
	l := NewLastGood(dir)
	load := func(when string, want bool, r *envelope.KeyRing) {
		t.Helper()
		l.Encrypt(func() *envelope.KeyRing { return r })
		gotIndex, gotShards, err := l.Load()
		if diff := cmp.Diff(index, gotIndex) + cmp.Diff(shards, gotShards); (err == nil) != want || want && diff != "" {
			t.Errorf("%s: %v %s", when, err, diff)
		}
	}
	load("in the clear", true, ring("one"))
	for when, save := range map[string]func() error{
		"resealed": l.Reseal,
		"saved":    func() error { return l.Save(index, getter(shards, new(int))) },
	} {
		if err := save(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		load(when, true, ring("one"))
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil || bytes.Contains(content, []byte("MARKER")) || bytes.Contains(content, []byte("shards")) || !ring("one").IsCurrent(content) {
			t.Errorf("%s is in the clear, %v", file.Name(), err)
		}
	}
	load("without its key", false, ring("two"))
	load("with both", true, ring("two", "one"))
	if err := l.Reseal(); err != nil {
		t.Fatal(err)
	}
	load("with the new key", true, ring("two"))
	if _, _, err := NewLastGood(dir).Load(); err == nil {
		t.Error("loaded without any key")
	}
}
