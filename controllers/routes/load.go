package routes

import (
	"context"
	"fmt"

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
	for i := range t.shards {
		_, named := t.index.Shards[i]
		// With no index to tell, a shard that is not there may have been lost with it.
		wanted := named || !indexed
		whole, err := t.loadShard(ctx, from, i, wanted)
		if err != nil {
			return err
		}
		if wanted && !whole {
			t.await(i, expected)
		}
	}
	t.reviewUnexpected(expected)
	return nil
}

// loadIndex tells whether there is an index that can be read.
func (t *Table) loadIndex(ctx context.Context, from storage) (bool, error) {
	t.index.Shards = make(map[int]string)
	t.index.force = true
	found, err := from.read(ctx, routing.IndexName(t.dispatcher.Name), routing.IndexKey)
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
	return true, nil
}

// loadShard tells whether the shard could be read. One that is not wanted was being written or removed when the
// manager stopped: nothing in it counts yet, or any more.
func (t *Table) loadShard(ctx context.Context, from storage, i int, wanted bool) (bool, error) {
	found, err := from.read(ctx, routing.ShardName(t.dispatcher.Name, i), routing.ShardKey)
	if err != nil || found == nil {
		return false, err
	}
	s := &t.shards[i]
	s.written.resourceVersion = found.resourceVersion
	entries, err := routing.DecodeShard(found.data)
	if err != nil || !wanted {
		s.force = true
		return false, nil
	}
	s.written.hash = routing.Hash(found.data)
	s.force = found.misplaced
	for _, entry := range entries {
		if _, err := entry.Route(); err != nil || routing.ShardOf(entry.Identity) != i {
			s.force = true
			continue
		}
		t.set(s, entry.Identity, entry)
		t.byName[client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}] = entry.Identity
	}
	return true, nil
}

// await keeps a shard from being written until all that belongs into it was seen.
func (t *Table) await(i int, expected map[string]client.ObjectKey) {
	s := &t.shards[i]
	s.force = true
	for identity, key := range expected {
		if routing.ShardOf(identity) != i {
			continue
		}
		if s.unseen == nil {
			s.unseen = make(map[client.ObjectKey]struct{})
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
