package routes

import (
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Table is one dispatcher's routing table. It is safe for concurrent use.
type Table struct {
	dispatcher client.ObjectKey
	uid        types.UID // of the dispatcher

	mu     sync.Mutex
	layout routing.Layout
	shards []shard
	// numbers are those of the shards, by the names of their Secrets.
	numbers map[string]int
	awaited int                         // shards that wait for subscriptions
	byName  map[client.ObjectKey]string // identities, also of what was not taken
	usages  map[string]usage            // by namespace
	index   writtenIndex
	// suspects are Secrets that may not be as they were written, with their resource versions.
	suspects map[string]string
	// leftovers are Secrets of shards that no index names; they are removed behind the next one.
	leftovers map[string]struct{}
	// burst is when entries changed since the last flush began.
	burst burst
	// moving is set from when the table was divided anew until an index says so.
	moving bool
	// notes are the entries that the dispatcher has not taken over, by identity; reported is the revision that it works by, 0 if
	// it does not say. placed is what the next index is the first to name.
	notes    map[string]noted
	reported int64
	placed   []placed

	// What only the one who flushes uses:
	next    time.Time // the earliest time of the next flush
	written int       // Secrets written so far
	// What may be written now.
	secretsLeft, bytesLeft allowance

	manyEntries int                                    // manyEntries, or fewer
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
	// room is what the entries take, and rooms what those of each namespace take.
	room  int64
	rooms map[string]int64
	// unseen are the subscriptions that a shard which could not be read still waits for; nil if it could.
	unseen  map[client.ObjectKey]struct{}
	written writtenSecret
	// force writes the shard although nothing changed, because its Secret is not as it was written.
	force bool
}

// misfit is an entry that was not taken, for want of room or quota.
type misfit struct {
	subscription client.ObjectKey
	generation   int64
	limits       Limits
	cost         int64 // 0 if its shard could not be encoded with it; the entry itself is not kept
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
		usages:      make(map[string]usage),
		suspects:    make(map[string]string),
		leftovers:   make(map[string]struct{}),
		notes:       make(map[string]noted),
		secretsLeft: newAllowance(secretsAtOnce, secretsPerSecond),
		bytesLeft:   newAllowance(bytesAtOnce, bytesPerMinute/60),
		manyEntries: manyEntries,
		encodeShard: routing.EncodeShard,
		changed:     changed,
		review:      review,
	}
	t.divide(routing.Small)
	return t
}

// Get returns the entry of the subscription with the given identity, nil if there is none. It is not to be modified.
func (t *Table) Get(identity string) *routing.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shardOf(identity).entries[identity]
}

// Misfit reports whether an entry of the given generation was found not to fit.
func (t *Table) Misfit(identity string, generation int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	misfit, found := t.shardOf(identity).full[identity]
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
// earlier subscription of the same name left. An entry that has no room, or is beyond the limits of its namespace, is not
// taken, and the one before it stays: then the error is a *routing.Rejection.
func (t *Table) Put(entry *routing.Entry, limits Limits) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
	t.see(key)
	t.drop(key, entry.Identity)
	s := t.shardOf(entry.Identity)
	if entry.Waiting == "" {
		if err := t.admit(s, entry, limits); err != nil {
			return err
		}
	} else if misfit, found := s.full[entry.Identity]; found && misfit.generation != entry.Generation {
		delete(s.full, entry.Identity)
	}
	before := s.entries[entry.Identity]
	if sameEntry(before, entry) {
		if before.Sources != entry.Sources { // it is written when the shard is, for other reasons
			s.entries[entry.Identity] = entry
		}
		return nil
	}
	t.byName[key] = entry.Identity
	t.change(s, entry.Identity, entry)
	t.changed()
	if before != nil && entry.Cost() < before.Cost() {
		t.retry(s, entry.Namespace)
	}
	return nil
}

// sameEntry reports whether two entries are equal but for what they were compiled from. The first may be nil.
func sameEntry(before, entry *routing.Entry) bool {
	if before == nil {
		return false
	}
	shown := *entry
	shown.Sources = before.Sources
	return reflect.DeepEqual(before, &shown)
}

// Keep reports whether the table has an accepted entry that was compiled from the given sources, and returns it. Then the
// subscription of the given name counts as looked at.
func (t *Table) Keep(key client.ObjectKey, identity string, generation int64, sources routing.SourcesDigest) *routing.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := t.shardOf(identity).entries[identity]
	if entry == nil || entry.Waiting != "" || entry.Generation != generation || entry.Sources != sources || sources == (routing.SourcesDigest{}) {
		return nil
	}
	t.see(key)
	t.drop(key, identity)
	return entry
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
	s := t.shardOf(old)
	delete(s.full, old)
	if s.entries[old] == nil {
		return // it was never taken
	}
	t.change(s, old, nil)
	t.retry(s, key.Namespace)
	t.changed()
}

// see notes that a subscription was looked at since the table was loaded.
func (t *Table) see(key client.ObjectKey) {
	if t.awaited == 0 {
		return
	}
	for i := range t.shards {
		s := &t.shards[i]
		if _, found := s.unseen[key]; !found {
			continue
		}
		delete(s.unseen, key)
		if len(s.unseen) == 0 {
			s.unseen, s.force = nil, true
			t.awaited--
			t.changed()
		}
	}
}

// suspect notes that a Secret has a resource version, or is gone if that is "". It reports whether that was not known.
func (t *Table) suspect(name, resourceVersion string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, isShard := t.numbers[name]; !isShard && name != routing.IndexName(t.dispatcher.Name) {
		return false // none that counts
	}
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
	if i, found := t.numbers[name]; found {
		return t.shards[i].written
	}
	return writtenSecret{}
}

// change sets an entry, or removes it if it is nil, and notes what was there when the shard was written last.
func (t *Table) change(s *shard, identity string, entry *routing.Entry) {
	t.burst.note(time.Now())
	if _, found := s.before[identity]; !found {
		s.before[identity] = s.entries[identity]
	}
	t.note(identity, s.entries[identity], entry)
	t.set(s, identity, entry)
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
