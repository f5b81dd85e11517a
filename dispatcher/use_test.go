package dispatcher

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/status"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func TestUseOfFolder(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare  func(t *testing.T, dir string)
		wantUsed bool
	}{
		"no folder":              {func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, false},
		"empty":                  {func(*testing.T, string) {}, false},
		"a new volume":           {func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700)) }, false},
		"of an earlier version":  {func(t *testing.T, dir string) { write(t, dir, "MANIFEST-000001", "x") }, true},
		"noted unused":           {func(t *testing.T, dir string) { write(t, dir, useFile, `{"id":"a","used":false}`) }, false},
		"noted used":             {func(t *testing.T, dir string) { write(t, dir, useFile, `{"id":"a","used":true}`) }, true},
		"the note is cut off":    {func(t *testing.T, dir string) { write(t, dir, useFile, `{"id":"a","us`) }, true},
		"the note has no id":     {func(t *testing.T, dir string) { write(t, dir, useFile, `{}`) }, true},
		"a note half-way there":  {func(t *testing.T, dir string) { write(t, dir, useFile+".new", `{}`) }, true},
		"only a routing table's": {func(t *testing.T, dir string) { write(t, dir, "routes", `{}`) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.prepare(t, dir)
			must(t, prepareUse(dir))
			first, err := readUse(dir)
			must(t, err)
			must(t, prepareUse(dir)) // a restart
			second, err := readUse(dir)
			must(t, err)
			if first.Used != tt.wantUsed || first.ID == "" || first != second {
				t.Errorf("want used %t, got %+v, then %+v", tt.wantUsed, first, second)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

// counting is a store that counts what it is given, and a status that can be told.
type counting struct {
	store.Store
	mu             sync.Mutex
	appended, asks int
	marked         bool // the status says Used
	err            error
	early          bool // an event was taken before the status said Used
}

func (c *counting) Append(context.Context, []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appended++
	c.early = c.early || !c.marked
	return nil, nil, nil
}

func (c *counting) Announce(_ context.Context, used bool) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false, c.err
	}
	c.marked = c.marked || used
	return c.marked, nil
}

func (c *counting) Use(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks++
	if c.err != nil {
		return c.err
	}
	c.marked = true
	return nil
}

// TestFirstEventWaitsForTheMark keeps that no event is accepted before the status says that the store is used, and that
// only the first ones ask.
func TestFirstEventWaitsForTheMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, prepareUse(dir))
	now, err := readUse(dir)
	must(t, err)
	c := &counting{err: errUnreachable}
	f := newFirstUse(c, dir, now, c)
	if _, _, err := f.Append(t.Context(), nil); !errors.Is(err, errUnreachable) || c.appended != 0 {
		t.Fatalf("an event was accepted although nobody was told (%v)", err)
	}
	c.err = nil
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, err := f.Append(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if c.appended != 50 || c.asks != 1 || c.early {
		t.Errorf("%d events accepted, asked %d times, one before the mark: %t", c.appended, c.asks, c.early)
	}
	if again, err := readUse(dir); err != nil || !again.Used || again.ID != now.ID {
		t.Errorf("the folder says %+v (%v)", again, err)
	}
}

var errUnreachable = errors.New("the API server does not answer")

// TestAbandonedStoreAcceptsNothing keeps that a store stays abandoned when the status says nothing of it any more.
func TestAbandonedStoreAcceptsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &counting{err: status.ErrAbandoned}
	f := newFirstUse(c, dir, use{ID: "a"}, c)
	for range 2 {
		if _, _, err := f.Append(t.Context(), nil); !errors.Is(err, status.ErrAbandoned) {
			t.Errorf("want ErrAbandoned, got %v", err)
		}
		c.err = nil
	}
	if c.appended != 0 {
		t.Errorf("%d events accepted", c.appended)
	}
}

func TestUsedStoreAsksNobody(t *testing.T) {
	t.Parallel()
	c := &counting{err: errUnreachable, marked: true}
	f := newFirstUse(c, t.TempDir(), use{ID: "a", Used: true}, c)
	if _, _, err := f.Append(t.Context(), nil); err != nil || c.asks != 0 {
		t.Errorf("asked %d times (%v)", c.asks, err)
	}
}

// TestMarkIsTakenUp starts after a crash between the mark in the status and the note in the folder.
func TestMarkIsTakenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, prepareUse(dir))
	now, err := readUse(dir)
	must(t, err)
	c := &counting{marked: true}
	newFirstUse(c, dir, now, c).announce(t.Context(), func(err error) { t.Error(err) })
	if again, err := readUse(dir); err != nil || !again.Used {
		t.Errorf("the folder says %+v (%v)", again, err)
	}
}

// TestAbandonedIsTakenBack: the manager takes its word back of a volume that turns out to be an old one. The store then accepts.
func TestAbandonedIsTakenBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, prepareUse(dir))
	now, err := readUse(dir)
	must(t, err)
	c := &counting{err: status.ErrAbandoned}
	f := newFirstUse(c, dir, now, c)
	if _, _, err := f.Append(t.Context(), nil); !errors.Is(err, status.ErrAbandoned) {
		t.Fatalf("got %v, want %v", err, status.ErrAbandoned)
	}
	c.err = nil
	f.announce(t.Context(), func(err error) { t.Error(err) })
	if _, _, err := f.Append(t.Context(), nil); err != nil {
		t.Errorf("the store accepts nothing after it was announced: %v", err)
	}
}
