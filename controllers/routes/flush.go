package routes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// snapshot is what a shard held when a flush began.
type snapshot struct {
	shard   int
	entries map[string]*routing.Entry
	before  map[string]*routing.Entry // as in shard; what the flush writes is no longer in there
}

// flush writes what changed: shards, then the index, and then removes emptied shards. It must not run twice at once for
// one table. What it could not write stays to be written.
func (t *Table) flush(ctx context.Context, to storage) error {
	if err := t.verify(ctx, to); err != nil {
		return err
	}
	t.grow()
	var emptied []int
	defer func() { t.rewrite(emptied) }() // those that an error kept from being removed
	for _, i := range t.due() {
		if !t.moving && t.pause(time.Now()) > 0 {
			t.changed() // the rest is for the next flush
			break
		}
		taken, ok := t.take(i)
		if !ok {
			continue
		}
		if len(taken.entries) == 0 {
			emptied = append(emptied, i)
			continue
		}
		if err := t.writeShard(ctx, to, taken); err != nil {
			return err
		}
	}
	if err := t.writeIndex(ctx, to, emptied); err != nil {
		return err
	}
	for len(emptied) > 0 {
		if err := t.removeShard(ctx, to, emptied[0]); err != nil {
			return err
		}
		emptied = emptied[1:]
	}
	return t.removeLeftovers(ctx, to)
}

// take returns what is to be written of a shard, and false if nothing is.
func (t *Table) take(i int) (snapshot, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.shards[i]
	if !s.dirty() {
		return snapshot{}, false
	}
	taken := snapshot{shard: i, entries: maps.Clone(s.entries), before: s.before}
	s.before = make(map[string]*routing.Entry)
	return taken, true
}

// giveBack makes what was taken be written again.
func (t *Table) giveBack(taken snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(t.shards[taken.shard].before, taken.before)
}

// rewrite makes shards be looked at again although nothing changes in them.
func (t *Table) rewrite(shards []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range shards {
		t.shards[i].force = true
	}
}

func (t *Table) writeShard(ctx context.Context, to storage, taken snapshot) error {
	data, entries, err := t.encode(taken)
	if err != nil {
		t.giveBack(taken)
		return err
	}
	t.mu.Lock()
	s := &t.shards[taken.shard]
	written, hash := s.written, routing.Hash(data)
	same := !s.force && written.hash == hash
	if same {
		t.place(taken.before, entries)
	}
	t.mu.Unlock()
	if same {
		return nil
	}
	name := t.layout.ShardName(t.dispatcher.Name, taken.shard)
	version, err := to.write(ctx, name, content{data: data, sources: routing.EncodeSources(data, entries)})
	if err != nil {
		t.giveBack(taken)
		return err
	}
	shardWrites.WithLabelValues(t.dispatcher.Namespace, t.dispatcher.Name).Inc()
	t.spend(len(data))
	t.mu.Lock()
	defer t.mu.Unlock()
	s.written, s.force = writtenSecret{resourceVersion: version, hash: hash}, false
	t.place(taken.before, entries)
	delete(t.leftovers, name)
	return nil
}

// encode returns the shard's bytes, and the entries in them. If its entries do not all fit, it leaves changes out until they
// do, and has the subscriptions looked at that this concerns.
func (t *Table) encode(taken snapshot) (data []byte, entries []*routing.Entry, err error) {
	entries = slices.Collect(maps.Values(taken.entries))
	data, err = t.encodeShard(entries)
	if !errors.Is(err, routing.ErrShardFull) {
		return data, entries, err
	}
	grown := make([]string, 0, len(taken.before))
	for _, identity := range sorted(taken.before) {
		if taken.entries[identity] != nil {
			grown = append(grown, identity)
		}
	}
	with := func(n int) ([]byte, []*routing.Entry, error) {
		some := maps.Clone(taken.entries)
		for _, identity := range grown[n:] {
			if delete(some, identity); taken.before[identity] != nil {
				some[identity] = taken.before[identity]
			}
		}
		list := slices.Collect(maps.Values(some))
		data, err := t.encodeShard(list)
		return data, list, err
	}
	fits, most := 0, len(grown)
	if data, entries, err = with(0); err != nil {
		return nil, nil, fmt.Errorf("encode shard %d without what changed: %w", taken.shard, err)
	}
	for fits < most-1 {
		middle := (fits + most) / 2
		attempt, some, err := with(middle)
		if err != nil {
			most = middle
			continue
		}
		fits, data, entries = middle, attempt, some
	}
	t.refuse(taken, grown[fits:])
	return data, entries, nil
}

// refuse takes changes back that do not fit.
func (t *Table) refuse(taken snapshot, identities []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.shards[taken.shard]
	for _, identity := range identities {
		entry := taken.entries[identity]
		if s.entries[identity] != entry { // it changed again, and is tried again
			s.before[identity] = taken.before[identity]
			continue
		}
		key := client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
		t.set(s, identity, taken.before[identity])
		t.takeBack(identity, taken.before[identity])
		if entry.Waiting == "" {
			s.full[identity] = misfit{subscription: key, generation: entry.Generation}
			t.review(key)
		}
	}
}

// writeIndex writes the index if it does not name the shards as they are written.
func (t *Table) writeIndex(ctx context.Context, to storage, emptied []int) error {
	t.mu.Lock()
	next, complete := t.nextIndex(emptied)
	needed := complete && (t.index.force || t.moving || !maps.Equal(next.Shards, t.index.Shards))
	if complete && !needed {
		t.indexed()
	}
	t.mu.Unlock()
	if !needed {
		return nil
	}
	data, err := next.Encode()
	if err != nil {
		return err
	}
	version, err := to.write(ctx, routing.IndexName(t.dispatcher.Name), content{data: data})
	if err != nil {
		return err
	}
	indexWrites.WithLabelValues(t.dispatcher.Namespace, t.dispatcher.Name).Inc()
	t.spend(len(data))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.index = writtenIndex{writtenSecret: writtenSecret{resourceVersion: version, hash: routing.Hash(data)}, Index: next}
	t.moving = false
	t.indexed()
	return nil
}

// nextIndex is the index of the shards as they are written. It is not complete while there is none yet and a shard
// still waits for subscriptions: then a table that lacks them must not be seen.
func (t *Table) nextIndex(emptied []int) (routing.Index, bool) {
	next := routing.Index{
		// The time keeps revisions growing even if the index was lost.
		Revision: max(t.index.Revision+1, time.Now().Unix()),
		Layout:   t.layout,
		Shards:   make(map[int]string),
	}
	complete := !t.moving || t.moved()
	for i := range t.shards {
		s := &t.shards[i]
		switch {
		case s.unseen != nil:
			complete = complete && t.index.Revision > 0
			if hash, found := t.index.Shards[i]; found {
				next.Shards[i] = hash
			}
		case s.written.hash != "" && !slices.Contains(emptied, i):
			next.Shards[i] = s.written.hash
		}
	}
	return next, complete
}

// removeShard deletes the Secret of a shard that is empty, if there is one.
func (t *Table) removeShard(ctx context.Context, to storage, i int) error {
	t.mu.Lock()
	s := &t.shards[i]
	exists := s.written.resourceVersion != ""
	t.mu.Unlock()
	if exists {
		if err := to.remove(ctx, t.layout.ShardName(t.dispatcher.Name, i)); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.written, s.force = writtenSecret{}, false
	return nil
}

// removeLeftovers removes Secrets that no index names, once there is one.
func (t *Table) removeLeftovers(ctx context.Context, to storage) error {
	t.mu.Lock()
	names := sorted(t.leftovers)
	if t.moving || t.index.hash == "" {
		names = nil
	}
	t.mu.Unlock()
	for _, name := range names {
		if err := to.remove(ctx, name); err != nil {
			return err
		}
		t.mu.Lock()
		delete(t.leftovers, name)
		t.mu.Unlock()
	}
	return nil
}

// verify reads the Secrets that someone else may have changed, and has those written again that are not as they were.
func (t *Table) verify(ctx context.Context, from storage) error {
	t.mu.Lock()
	suspects := maps.Clone(t.suspects)
	t.mu.Unlock()
	for _, name := range sorted(suspects) {
		if err := t.verifyOne(ctx, from, name, suspects[name]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) verifyOne(ctx context.Context, from storage, name, seen string) error {
	t.mu.Lock()
	known := t.writtenAs(name).resourceVersion == seen && seen != ""
	t.mu.Unlock()
	var found *stored
	if !known {
		var err error
		if found, err = from.read(ctx, name); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspects[name] == seen {
		delete(t.suspects, name)
	}
	if !known {
		t.compare(name, found)
	}
	return nil
}

// compare forces a Secret to be written, or removed, that is not as it was written.
func (t *Table) compare(name string, found *stored) {
	intact := func(written writtenSecret) bool {
		if found == nil {
			return written.hash == ""
		}
		return !found.misplaced && routing.Hash(found.data) == written.hash
	}
	if name == routing.IndexName(t.dispatcher.Name) {
		t.index.force = t.index.force || !intact(t.index.writtenSecret)
		return
	}
	i, isShard := t.numbers[name]
	if !isShard || intact(t.shards[i].written) {
		return
	}
	s := &t.shards[i]
	s.force = true
	if found != nil {
		s.written.resourceVersion = found.resourceVersion
	}
}
