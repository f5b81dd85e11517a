package dispatcher

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// others are dispatchers of which the slowest works by this revision.
type others struct{ announced, slowest atomic.Int64 }

func (o *others) Announce(revision int64) { o.announced.Store(revision) }
func (o *others) Slowest() int64          { return min(o.announced.Load(), o.slowest.Load()) }
func (o *others) AnnounceSettings(int64)  {}
func (o *others) OldestSettings() int64   { return 0 }

func TestATableIsProgrammedOnceEveryDispatcherHasIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o others
		var used atomic.Int64
		p := &programming{fleet: &o, use: func(table *routing.Table) { used.Store(table.Revision) }}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.run(ctx)
		at := func(want int64) {
			t.Helper()
			<-time.After(time.Second)
			if got := used.Load(); got != want {
				t.Errorf("revision %d is programmed, want %d", got, want)
			}
		}
		for revision := range int64(100) { // one after the other, and the others lag behind
			p.add(&routing.Table{Revision: 1 + revision})
		}
		at(0)
		o.slowest.Store(3)
		at(3)
		o.slowest.Store(200)
		at(100)
		if len(p.tables) != 0 {
			t.Errorf("%d tables are kept", len(p.tables))
		}
	})
}

func TestOneDispatcherProgramsAtOnce(t *testing.T) {
	t.Parallel()
	var used int64
	p := &programming{use: func(table *routing.Table) { used = table.Revision }}
	p.add(&routing.Table{Revision: 7})
	if used != 7 {
		t.Errorf("revision %d is programmed, want 7", used)
	}
}
