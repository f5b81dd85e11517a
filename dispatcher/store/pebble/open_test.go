package pebble_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// refused expects Open to fail with one line that contains want.
func refused(t *testing.T, dir string, options pebble.Options, want string) error {
	t.Helper()
	s, err := pebble.Open(dir, options)
	if err == nil {
		t.Fatal("it was opened", s.Close())
	}
	if line := err.Error(); !strings.Contains(line, want) || !strings.Contains(line, dir) || strings.Contains(line, "\n") {
		t.Errorf("Open failed with %q, want one line with %q and the directory", line, want)
	}
	return err
}

// write sets a key in the engine's own terms.
func write(t *testing.T, fs vfs.FS, dir string, key, value []byte) {
	t.Helper()
	db, err := engine.Open(dir, &engine.Options{FS: fs, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set(key, value, engine.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		key, value []byte
		want       string
		wantKind   error
	}{
		"a newer format":             {pebble.FormatKey, []byte{1, 0, 0, 4}, "format 4", store.ErrNewer},
		"a newer record":             {pebble.FormatKey, []byte{9, 0, 0, 1}, "version 9", store.ErrNewer},
		"a damaged format":           {pebble.FormatKey, []byte{1}, "damaged format record", store.ErrDamaged},
		"another program's database": {[]byte("x"), []byte("y"), "another program", store.ErrNotOpen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			write(t, fs, "data", test.key, test.value)
			err := refused(t, "data", pebble.Options{FS: fs}, test.want)
			if !errors.Is(err, test.wantKind) || !errors.Is(err, store.ErrNotOpen) {
				t.Errorf("Open failed with %v, want it to be %v", err, test.wantKind)
			}
			_ = refused(t, "data", pebble.Options{FS: fs}, test.want) // and leaves nothing locked
		})
	}
}

func TestOpenWaitsForTheLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := pebble.Open(dir, pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pebble.Open(dir, pebble.Options{LockWait: 10 * time.Millisecond})
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("Open gave %v, want ErrLocked", err)
	}
	opened := make(chan error)
	go func() {
		second, err := pebble.Open(dir, pebble.Options{LockWait: time.Minute})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("Open once the lock is free: %v", err)
	}
}

// TestOpenDamaged damages one file at a time. Either the error names it, or nothing was lost.
func TestOpenDamaged(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	if err := work(vfs.Default, origin, func(event.DeliveryID) {}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(origin, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"MANIFEST-", ".sst", "OPTIONS-"} {
		for _, file := range files {
			name := filepath.Base(file)
			if !strings.Contains(name, kind) || strings.HasPrefix(name, "marker.") {
				continue
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), content[:len(content)/2], 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1})
			switch {
			case err == nil:
				t.Errorf("%s: the store was opened although half of it is missing", name)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			case !errors.Is(err, store.ErrDamaged):
				t.Errorf("%s: %v is not an error of damage", name, err)
			case strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), strings.TrimSuffix(name, ".sst")):
				t.Errorf("%s: the error does not name the file: %v", name, err)
			}
		}
	}
}
