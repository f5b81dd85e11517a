package routes

import (
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// ErrFull says that an entry does not fit into its shard.
var ErrFull = errors.New("the routing table has no room for this subscription: shorten its headers, delete subscriptions, or spread them over several WebhookDispatchers")

// Table is one dispatcher's routing table. It is safe for concurrent use.
type Table struct {
	dispatcher client.ObjectKey

	mu     sync.Mutex
	shards [routing.Shards]shard
	byName map[client.ObjectKey]string // identities
	index  writtenIndex
	// suspects are Secrets that may not be as they were written, with their resource versions.
	suspects map[string]string

	// What only the one who flushes uses:
	next    time.Time // the earliest time of the next flush
	written int       // Secrets written so far

	encodeShard func([]*routing.Entry) ([]byte, error) // routing.EncodeShard, or one with less room

	changed func()                    // something is to be written
	review  func(...client.ObjectKey) // subscriptions to be reconciled: their entries do not fit, or may fit again
}

// shard is a part of a table: what it holds, and what of that is written.
type shard struct {
	entries map[string]*routing.Entry // by identity
	// before holds what the entries that changed since the last write were then, nil for those that were not there.
	before map[string]*routing.Entry
	// full holds what did not fit, by identity.
	full map[string]misfit
	// unseen are the subscriptions that a shard which could not be read still waits for; nil if it could.
	unseen  map[client.ObjectKey]struct{}
	written writtenSecret
	// force writes the shard although nothing changed, because its Secret is not as it was written.
	force bool
}

// misfit is an entry that did not fit into its shard.
type misfit struct {
	subscription client.ObjectKey
	generation   int64
}

// writtenSecret is a Secret as it was last written or read; the zero value is one that does not exist.
type writtenSecret struct {
	resourceVersion string
	hash            string
}

// writtenIndex is the index as it was last written or read.
type writtenIndex struct {
	writtenSecret
	routing.Index
	force bool
}

func newTable(dispatcher client.ObjectKey, changed func(), review func(...client.ObjectKey)) *Table {
	t := &Table{
		dispatcher:  dispatcher,
		byName:      make(map[client.ObjectKey]string),
		suspects:    make(map[string]string),
		encodeShard: routing.EncodeShard,
		changed:     changed,
		review:      review,
	}
	for i := range t.shards {
		t.shards[i] = shard{
			entries: make(map[string]*routing.Entry),
			before:  make(map[string]*routing.Entry),
			full:    make(map[string]misfit),
		}
	}
	return t
}

// Get returns the entry of the subscription with the given identity, nil if there is none. It is not to be modified.
func (t *Table) Get(identity string) *routing.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shards[routing.ShardOf(identity)].entries[identity]
}

// Misfit tells whether an entry of the given generation was found not to fit.
func (t *Table) Misfit(identity string, generation int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	misfit, found := t.shards[routing.ShardOf(identity)].full[identity]
	return found && misfit.generation == generation
}

// Len is the number of entries.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.shards {
		n += len(t.shards[i].entries)
	}
	return n
}

// Put takes an entry into the table, in the place of the one it has for the same subscription and of any that an
// earlier subscription of the same name left. It fails with ErrFull if the entry was found not to fit.
func (t *Table) Put(entry *routing.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
	t.see(key)
	t.drop(key, entry.Identity)
	s := &t.shards[routing.ShardOf(entry.Identity)]
	if misfit, found := s.full[entry.Identity]; found {
		if misfit.generation == entry.Generation && entry.Waiting == "" {
			return ErrFull
		}
		if misfit.generation != entry.Generation {
			delete(s.full, entry.Identity)
		}
	}
	if reflect.DeepEqual(s.entries[entry.Identity], entry) {
		return nil
	}
	t.byName[key] = entry.Identity
	s.change(entry.Identity, entry)
	t.changed()
	return nil
}

// Clear takes out of the table what an earlier subscription of the given name left: any entry but that of the given
// identity. With no identity it is the subscription's deletion.
func (t *Table) Clear(key client.ObjectKey, identity string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.see(key)
	t.drop(key, identity)
}

func (t *Table) drop(key client.ObjectKey, identity string) {
	old, found := t.byName[key]
	if !found || old == identity {
		return
	}
	delete(t.byName, key)
	s := &t.shards[routing.ShardOf(old)]
	s.change(old, nil)
	delete(s.full, old)
	t.retry(s)
	t.changed()
}

// retry has what did not fit into a shard tried again: there is more room now.
func (t *Table) retry(s *shard) {
	for _, misfit := range s.full {
		t.review(misfit.subscription)
	}
	clear(s.full)
}

// see notes that a subscription was looked at since the table was loaded.
func (t *Table) see(key client.ObjectKey) {
	for i := range t.shards {
		s := &t.shards[i]
		if _, found := s.unseen[key]; !found {
			continue
		}
		delete(s.unseen, key)
		if len(s.unseen) == 0 {
			s.unseen, s.force = nil, true
			t.changed()
		}
	}
}

// suspect notes that a Secret has a resource version, or is gone if that is "". It tells whether that was not known.
func (t *Table) suspect(name, resourceVersion string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if resourceVersion != "" && t.writtenAs(name).resourceVersion == resourceVersion {
		delete(t.suspects, name)
		return false
	}
	t.suspects[name] = resourceVersion
	return true
}

// writtenAs is the Secret of the given name as it was last written.
func (t *Table) writtenAs(name string) writtenSecret {
	if name == routing.IndexName(t.dispatcher.Name) {
		return t.index.writtenSecret
	}
	for i := range t.shards {
		if name == routing.ShardName(t.dispatcher.Name, i) {
			return t.shards[i].written
		}
	}
	return writtenSecret{}
}

// change sets an entry, or removes it if it is nil.
func (s *shard) change(identity string, entry *routing.Entry) {
	if _, found := s.before[identity]; !found {
		s.before[identity] = s.entries[identity]
	}
	if entry == nil {
		delete(s.entries, identity)
		return
	}
	s.entries[identity] = entry
}

func (s *shard) dirty() bool {
	return s.unseen == nil && (s.force || len(s.before) > 0)
}

// sorted are the keys of m in order.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
