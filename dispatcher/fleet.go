package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// fleetPause is how often the dispatcher checks that all of them have a table.
	fleetPause = 200 * time.Millisecond
	// maxTables bounds how many tables wait for that.
	maxTables = 16
)

// fleet is a store that several dispatchers share: it knows by which revision of the routing table, and which
// generation of the settings, each works.
type fleet interface {
	Announce(revision int64)
	Slowest() int64
	AnnounceSettings(generation int64)
	OldestSettings() int64
}

// programming holds tables back until every live dispatcher works by them: only then is a subscription programmed.
type programming struct {
	fleet fleet // nil for one dispatcher
	use   func(*routing.Table)

	mu     sync.Mutex
	tables []*routing.Table // oldest first
}

// add takes a table that this dispatcher works by.
func (p *programming) add(table *routing.Table) {
	if p.fleet == nil {
		p.use(table)
		return
	}
	p.fleet.Announce(table.Revision)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tables) == maxTables { // the oldest are the next to be programmed, the newest what is wanted
		p.tables = append(p.tables[:maxTables/2], p.tables[maxTables/2+1:]...)
	}
	p.tables = append(p.tables, table)
}

// take returns the newest table that every dispatcher works by, and forgets those before; nil if there is none.
func (p *programming) take() *routing.Table {
	slowest := p.fleet.Slowest()
	p.mu.Lock()
	defer p.mu.Unlock()
	var newest *routing.Table
	for len(p.tables) > 0 && p.tables[0].Revision <= slowest {
		newest = p.tables[0]
		p.tables = p.tables[1:]
	}
	return newest
}

// run hands tables on until ctx ends.
func (p *programming) run(ctx context.Context) {
	if p.fleet == nil {
		return
	}
	tick := time.NewTicker(fleetPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if table := p.take(); table != nil {
			p.use(table)
		}
	}
}
