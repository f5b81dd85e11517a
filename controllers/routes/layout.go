package routes

import (
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// A Small table becomes Large once it has more entries than this, so that a change does not rewrite hundreds, or
	manyEntries = 20_000
	// once a shard holds this much: early enough that no entry is refused for want of room that a Large table has.
	muchRoom = routing.ShardRoom / 4
)

// divide makes the table one of empty shards.
func (t *Table) divide(layout routing.Layout) {
	t.layout = layout
	t.shards = make([]shard, layout)
	t.numbers = make(map[string]int, layout)
	for i := range t.shards {
		t.shards[i] = shard{
			entries: make(map[string]*routing.Entry),
			before:  make(map[string]*routing.Entry),
			full:    make(map[string]misfit),
			rooms:   make(map[string]int64),
		}
		t.numbers[layout.ShardName(t.dispatcher.Name, i)] = i
	}
}

// shardOf is the shard that an identity belongs into.
func (t *Table) shardOf(identity string) *shard { return &t.shards[t.layout.ShardOf(identity)] }

// outgrown reports whether a table is to become Large. One that waits for subscriptions does not: what it holds is not yet
// known.
func (t *Table) outgrown() bool {
	if t.layout == routing.Large || t.awaited > 0 {
		return false
	}
	entries := 0
	for i := range t.shards {
		if t.shards[i].room > muchRoom {
			return true
		}
		entries += len(t.shards[i].entries)
	}
	return entries > t.manyEntries
}

// grow divides the table anew, if it is time. The Secrets of the new shards are written before an index names them; until
// then dispatchers go by those that are there, which are removed behind it. A manager that stops in between finds the old
// ones, and begins again.
func (t *Table) grow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.outgrown() {
		return
	}
	old, layout := t.shards, t.layout
	t.divide(routing.Large)
	t.usages = make(map[string]usage)
	for i := range old {
		if old[i].written.resourceVersion != "" {
			t.leftovers[layout.ShardName(t.dispatcher.Name, i)] = struct{}{}
		}
		for identity, entry := range old[i].entries {
			s := t.shardOf(identity)
			t.set(s, identity, entry)
			s.force = true
		}
		for identity, entry := range old[i].before {
			t.shardOf(identity).before[identity] = entry
		}
		for identity, misfit := range old[i].full {
			t.shardOf(identity).full[identity] = misfit
		}
	}
	t.moving = true
}

// moved reports whether all shards of a table that was divided anew are written.
func (t *Table) moved() bool {
	for i := range t.shards {
		if t.shards[i].force && len(t.shards[i].entries) > 0 {
			return false
		}
	}
	return true
}
