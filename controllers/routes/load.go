package routes

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// load reads the table back, before anyone else has it. expected are the subscriptions that should be in it, by
// identity, as far as is known.
func (t *Table) load(ctx context.Context, from storage, expected map[string]client.ObjectKey) error {
	indexed, err := t.loadIndex(ctx, from)
	if err != nil {
		return err
	}
	whole := make(map[int]bool)
	take := func(name string, found *stored) {
		if i, ok := t.numbers[name]; ok {
			whole[i] = t.loadShard(i, found, t.wants(i, indexed))
		} else if slices.Contains(routing.ShardNames(t.dispatcher.Name), name) { // of another layout
			t.leftovers[name] = struct{}{}
		}
	}
	if indexed {
		err = from.list(ctx, take)
	} else {
		err = t.loadUnindexed(ctx, from, take)
	}
	if err != nil {
		return err
	}
	for i := range t.shards {
		if _, found := whole[i]; !found && t.named(i) { // its label may be gone
			secret, err := from.read(ctx, t.layout.ShardName(t.dispatcher.Name, i))
			if err != nil {
				return err
			}
			if secret != nil {
				whole[i] = t.loadShard(i, secret, true)
			}
		}
		if t.wants(i, indexed) && !whole[i] {
			t.await(i, expected)
		}
	}
	t.inherit()
	t.reviewUnexpected(expected)
	return nil
}

// loadUnindexed reads shards whose index is lost. They are those of a Large table if there are no others.
func (t *Table) loadUnindexed(ctx context.Context, from storage, take func(name string, found *stored)) error {
	found := make(map[string]*stored)
	if err := from.list(ctx, func(name string, secret *stored) { found[name] = secret }); err != nil {
		return err
	}
	small, large := 0, 0
	for i := range int(routing.Large) {
		if found[routing.Large.ShardName(t.dispatcher.Name, i)] != nil {
			large++
		}
	}
	for i := range int(routing.Small) {
		if found[routing.Small.ShardName(t.dispatcher.Name, i)] != nil {
			small++
		}
	}
	if large > 0 && small == 0 {
		t.divide(routing.Large)
	}
	for _, name := range sorted(found) {
		take(name, found[name])
	}
	return nil
}

func (t *Table) named(i int) bool {
	_, named := t.index.Shards[i]
	return named
}

// wants reports whether a shard counts. With no index to tell, one that is not there may have been lost with it.
func (t *Table) wants(i int, indexed bool) bool { return t.named(i) || !indexed }

// loadIndex reports whether there is an index that can be read.
func (t *Table) loadIndex(ctx context.Context, from storage) (bool, error) {
	t.index.Shards = make(map[int]string)
	t.index.force = true
	found, err := from.read(ctx, routing.IndexName(t.dispatcher.Name))
	if err != nil || found == nil {
		return false, err
	}
	index, err := routing.DecodeIndex(found.data)
	if err != nil { // damaged, or of another version: it is made anew
		return false, nil
	}
	t.index = writtenIndex{
		writtenSecret: writtenSecret{resourceVersion: found.resourceVersion, hash: routing.Hash(found.data)},
		Index:         *index,
		force:         found.misplaced,
	}
	t.divide(index.Layout)
	return true, nil
}

// loadShard reports whether the shard could be read. One that is not wanted was being written or removed when the
// manager stopped: nothing in it counts yet, or any more.
func (t *Table) loadShard(i int, found *stored, wanted bool) bool {
	s := &t.shards[i]
	s.written.resourceVersion = found.resourceVersion
	entries, err := routing.DecodeShard(found.data)
	if err != nil || !wanted {
		s.force = true
		return false
	}
	routing.DecodeSources(found.sources, found.data, entries)
	s.written.hash = routing.Hash(found.data)
	s.force = found.misplaced
	for _, entry := range entries {
		if _, err := entry.Route(); err != nil || t.layout.ShardOf(entry.Identity) != i {
			s.force = true
			continue
		}
		t.set(s, entry.Identity, entry)
		t.byName[client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}] = entry.Identity
	}
	return true
}

// await keeps a shard from being written until all that belongs into it was seen.
func (t *Table) await(i int, expected map[string]client.ObjectKey) {
	s := &t.shards[i]
	s.force = true
	for identity, key := range expected {
		if t.layout.ShardOf(identity) != i {
			continue
		}
		if s.unseen == nil {
			s.unseen = make(map[client.ObjectKey]struct{})
			t.awaited++
		}
		s.unseen[key] = struct{}{}
		t.review(key)
	}
}

// reviewUnexpected has those entries looked at whose subscriptions seem to be gone.
func (t *Table) reviewUnexpected(expected map[string]client.ObjectKey) {
	for key, identity := range t.byName {
		if _, found := expected[identity]; !found {
			t.review(key)
		}
	}
}

// String keeps what a table holds out of logs.
func (t *Table) String() string { return fmt.Sprintf("routing table of %s", t.dispatcher) }
