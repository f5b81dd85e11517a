package routes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// fakeStorage keeps Secrets in memory and counts what is done to them.
type fakeStorage struct {
	secrets map[string]stored
	writes  []string
	removed []string
	fail    map[string]error // by name
	version int
	onWrite func(name string) // before a write
}

func newFakeStorage() *fakeStorage {
	return &fakeStorage{secrets: make(map[string]stored), fail: make(map[string]error)}
}

func (f *fakeStorage) read(_ context.Context, name, _ string) (*stored, error) {
	if err := f.fail[name]; err != nil {
		return nil, err
	}
	secret, found := f.secrets[name]
	if !found {
		return nil, nil
	}
	return &secret, nil
}

func (f *fakeStorage) write(_ context.Context, name, _ string, data []byte) (string, error) {
	if f.onWrite != nil {
		f.onWrite(name)
	}
	if err := f.fail[name]; err != nil {
		return "", err
	}
	f.version++
	version := strconv.Itoa(f.version)
	f.secrets[name] = stored{resourceVersion: version, data: data}
	f.writes = append(f.writes, name)
	return version, nil
}

func (f *fakeStorage) remove(_ context.Context, name string) error {
	if err := f.fail[name]; err != nil {
		return err
	}
	delete(f.secrets, name)
	f.removed = append(f.removed, name)
	return nil
}

// content is what a dispatcher reads: the index, and the shards it names.
func (f *fakeStorage) content(t *testing.T) []string {
	t.Helper()
	index, err := routing.DecodeIndex(f.secrets[indexName].data)
	if err != nil {
		t.Fatalf("read the index: %v", err)
	}
	found := []string{}
	for i, hash := range index.Shards {
		data := f.secrets[shardName(i)].data
		if routing.Hash(data) != hash {
			t.Fatalf("shard %d is not what the index names", i)
		}
		entries, err := routing.DecodeShard(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			found = append(found, entry.Name)
		}
	}
	slices.Sort(found)
	return found
}

var (
	dispatcher = client.ObjectKey{Namespace: "eventflow-system", Name: "main"}
	indexName  = routing.IndexName("main")
	errAway    = errors.New("the API server is away")
)

func shardName(i int) string { return routing.ShardName("main", i) }

// bench is a table with what surrounds it.
type bench struct {
	*Table
	storage  *fakeStorage
	reviewed []client.ObjectKey
	changes  int
}

func open(t *testing.T, storage *fakeStorage, expected ...*routing.Entry) *bench {
	t.Helper()
	b := &bench{storage: storage}
	b.Table = newTable(dispatcher, func() { b.changes++ }, func(keys ...client.ObjectKey) { b.reviewed = append(b.reviewed, keys...) })
	subscriptions := make(map[string]client.ObjectKey)
	for _, entry := range expected {
		subscriptions[entry.Identity] = keyOf(entry)
	}
	if err := b.load(t.Context(), storage, subscriptions); err != nil {
		t.Fatalf("load: %v", err)
	}
	return b
}

func (b *bench) put(t *testing.T, entries ...*routing.Entry) {
	t.Helper()
	for _, entry := range entries {
		if err := b.Put(entry); err != nil {
			t.Fatalf("put %s: %v", entry.Name, err)
		}
	}
}

func (b *bench) mustFlush(t *testing.T) {
	t.Helper()
	if err := b.flush(t.Context(), b.storage); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func (b *bench) want(t *testing.T, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := b.storage.content(t); !slices.Equal(got, names) {
		t.Errorf("the Secrets hold %v, want %v", got, names)
	}
}

func keyOf(entry *routing.Entry) client.ObjectKey {
	return client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
}

func newEntry(name string) *routing.Entry {
	return &routing.Entry{
		Identity: "uid-" + name, Namespace: "clinic", Name: name, Generation: 1,
		Patterns: []event.Pattern{event.All}, URL: "https://example.com/" + name, Keys: [][]byte{[]byte("key")},
		Timeout: time.Second, MaxInFlight: 1,
		Retry: routing.Retry{Initial: time.Second, Max: time.Second, MaxAge: time.Second, Factor: 1},
	}
}

// inShard returns entries that all belong into one shard, each with a URL of so many random bytes.
func inShard(i, n, size int) []*routing.Entry {
	var found []*routing.Entry
	for k := 0; len(found) < n; k++ {
		entry := newEntry(fmt.Sprintf("s%05d", k))
		if routing.ShardOf(entry.Identity) != i {
			continue
		}
		noise := make([]byte, size)
		_, _ = rand.Read(noise)
		entry.URL += "?" + hex.EncodeToString(noise)
		found = append(found, entry)
	}
	return found
}

func TestFlushWritesWhatChanged(t *testing.T) {
	t.Parallel()
	first, second := inShard(3, 1, 0)[0], inShard(7, 1, 0)[0]
	b := open(t, newFakeStorage())
	b.mustFlush(t)
	b.want(t)

	b.put(t, first, second)
	b.storage.writes = nil
	b.mustFlush(t)
	if want := []string{shardName(3), shardName(7), indexName}; !slices.Equal(b.storage.writes, want) {
		t.Errorf("wrote %v, want the shards and then the index %v", b.storage.writes, want)
	}
	b.want(t, first.Name, second.Name)

	same := *first
	b.put(t, &same)
	b.storage.writes, b.changes = nil, 0
	b.mustFlush(t)
	if len(b.storage.writes) != 0 {
		t.Errorf("wrote %v although nothing changed", b.storage.writes)
	}

	moved := *first
	moved.Generation, moved.URL = 2, "https://example.com/elsewhere"
	b.put(t, &moved)
	b.Clear(keyOf(second), "")
	b.mustFlush(t)
	b.want(t, first.Name)
	if want := []string{shardName(7)}; !slices.Equal(b.storage.removed, want) {
		t.Errorf("removed %v, want the empty shard %v", b.storage.removed, want)
	}
}

func TestPutReplacesWhatHadTheName(t *testing.T) {
	t.Parallel()
	b := open(t, newFakeStorage())
	old, successor := newEntry("billing"), newEntry("billing")
	successor.Identity = "uid-of-another"
	b.put(t, old, successor)
	b.mustFlush(t)
	if b.Get(old.Identity) != nil || b.Get(successor.Identity) == nil || b.Len() != 1 {
		t.Errorf("the table has %d entries, the old one: %v", b.Len(), b.Get(old.Identity) != nil)
	}
	b.Clear(keyOf(old), old.Identity)
	if b.Len() != 0 {
		t.Error("an entry of another identity was kept")
	}
}

func TestFlushTriesAgain(t *testing.T) {
	t.Parallel()
	shards := inShard(3, 3, 0)
	tests := map[string]string{"shard": shardName(3), "index": indexName}
	for name, failing := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			b.put(t, shards[0])
			b.mustFlush(t)

			b.put(t, shards[1])
			b.storage.fail[failing] = errAway
			if err := b.flush(t.Context(), b.storage); !errors.Is(err, errAway) {
				t.Fatalf("flush: %v, want %v", err, errAway)
			}
			clear(b.storage.fail)
			b.mustFlush(t)
			b.want(t, shards[0].Name, shards[1].Name)

			b.put(t, shards[2])
			b.storage.fail[failing] = errAway
			if err := b.flush(t.Context(), b.storage); !errors.Is(err, errAway) {
				t.Fatalf("flush: %v, want %v", err, errAway)
			}
			b.Clear(keyOf(shards[2]), "") // and back again
			clear(b.storage.fail)
			b.mustFlush(t)
			b.want(t, shards[0].Name, shards[1].Name)
		})
	}
	t.Run("removal", func(t *testing.T) {
		t.Parallel()
		b := open(t, newFakeStorage())
		b.put(t, shards[0])
		b.mustFlush(t)
		b.Clear(keyOf(shards[0]), "")
		b.storage.fail[shardName(3)] = errAway
		if err := b.flush(t.Context(), b.storage); !errors.Is(err, errAway) {
			t.Fatalf("flush: %v, want %v", err, errAway)
		}
		b.want(t) // no index names what is being removed
		clear(b.storage.fail)
		b.mustFlush(t)
		if _, found := b.storage.secrets[shardName(3)]; found {
			t.Error("the empty shard is still there")
		}
	})
}

func TestChangesDuringFlushAreNotLost(t *testing.T) {
	t.Parallel()
	shards := inShard(3, 3, 0)
	b := open(t, newFakeStorage())
	b.put(t, shards[0], shards[1])
	b.storage.onWrite = func(string) {
		b.storage.onWrite = nil
		b.put(t, shards[2])
		b.Clear(keyOf(shards[0]), "")
	}
	b.mustFlush(t)
	b.want(t, shards[0].Name, shards[1].Name)
	b.mustFlush(t)
	b.want(t, shards[1].Name, shards[2].Name)
}

func TestLoadFindsWhatWasWritten(t *testing.T) {
	t.Parallel()
	first, second, held := newEntry("first"), newEntry("second"), newEntry("held")
	b := open(t, newFakeStorage())
	b.put(t, first, second, held)
	b.put(t, routing.Hold(b.Get(held.Identity), 1, "SecretNotFound"))
	b.mustFlush(t)

	b.storage.writes = nil
	again := open(t, b.storage, first, held) // second was deleted meanwhile
	if want := []client.ObjectKey{keyOf(second)}; !slices.Equal(again.reviewed, want) {
		t.Errorf("had %v looked at, want %v", again.reviewed, want)
	}
	if entry := again.Get(held.Identity); entry == nil || entry.Waiting != "SecretNotFound" {
		t.Errorf("the entry that waits is %v", entry)
	}
	again.put(t, first)
	again.mustFlush(t)
	if len(b.storage.writes) != 0 {
		t.Errorf("wrote %v after a restart without changes", b.storage.writes)
	}
	again.Clear(keyOf(second), "")
	again.mustFlush(t)
	again.want(t, first.Name, held.Name)
}

func TestDamagedShardWaitsForItsSubscriptions(t *testing.T) {
	t.Parallel()
	lost, other := inShard(3, 2, 0), inShard(7, 1, 0)[0]
	garbage := stored{resourceVersion: "x", data: []byte("garbage")}
	tests := map[string]func(map[string]stored){
		"shard missing": func(s map[string]stored) { delete(s, shardName(3)) },
		"shard garbled": func(s map[string]stored) { s[shardName(3)] = garbage },
		"all missing":   func(s map[string]stored) { clear(s) },
		"index garbled, shard missing": func(s map[string]stored) {
			s[indexName] = garbage
			delete(s, shardName(3))
		},
	}
	for name, harm := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			b.put(t, lost[0], lost[1], other)
			b.mustFlush(t)
			harm(b.storage.secrets)
			damaged := maps.Clone(b.storage.secrets)

			again := open(t, b.storage, lost[0], lost[1], other)
			again.put(t, other, lost[0])
			again.mustFlush(t)
			if got, was := b.storage.secrets[shardName(3)], damaged[shardName(3)]; !slices.Equal(got.data, was.data) {
				t.Fatal("a shard was written that lacks a subscription nobody looked at yet")
			}
			if index, err := routing.DecodeIndex(b.storage.secrets[indexName].data); err == nil && index.Shards[3] == "" {
				t.Fatal("an index was written that lacks a shard")
			}
			again.put(t, lost[1])
			again.mustFlush(t)
			again.want(t, lost[0].Name, lost[1].Name, other.Name)
		})
	}
}

func TestLoadFailsIfItCannotTell(t *testing.T) {
	t.Parallel()
	for _, name := range []string{indexName, shardName(12)} {
		storage := newFakeStorage()
		storage.fail[name] = errAway
		table := newTable(dispatcher, func() {}, func(...client.ObjectKey) {})
		if err := table.load(t.Context(), storage, nil); !errors.Is(err, errAway) {
			t.Errorf("%s away: load says %v, want %v", name, err, errAway)
		}
	}
}

func TestShardThatWasBeingRemovedIsNotTakenUp(t *testing.T) {
	t.Parallel()
	gone, kept := inShard(3, 1, 0)[0], inShard(7, 1, 0)[0]
	b := open(t, newFakeStorage())
	b.put(t, gone, kept)
	b.mustFlush(t)
	leftover := b.storage.secrets[shardName(3)]
	b.Clear(keyOf(gone), "")
	b.mustFlush(t)
	b.storage.secrets[shardName(3)] = leftover

	again := open(t, b.storage, kept)
	if again.Get(gone.Identity) != nil {
		t.Error("an entry came back that no index names")
	}
	again.mustFlush(t)
	again.want(t, kept.Name)
	if _, found := b.storage.secrets[shardName(3)]; found {
		t.Error("a leftover shard, with the keys it holds, is still there")
	}
}

func TestRevisionGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFakeStorage())
		revision := int64(0)
		for i := range 4 {
			b.put(t, newEntry(strconv.Itoa(i)))
			b.mustFlush(t)
			index, err := routing.DecodeIndex(b.storage.secrets[indexName].data)
			if err != nil || index.Revision <= revision {
				t.Fatalf("revision %d after %d (%v)", index.Revision, revision, err)
			}
			revision = index.Revision
			if i == 2 { // the index is lost while no manager runs
				time.Sleep(time.Minute)
				delete(b.storage.secrets, indexName)
				b = open(t, b.storage)
			}
		}
	})
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	shard := inShard(3, 1, 0)[0]
	tests := map[string]struct {
		harm       func(*fakeStorage)
		name       string
		version    string
		wantWrites []string
	}{
		"our own write":        {func(*fakeStorage) {}, shardName(3), "2", nil},
		"touched, not changed": {func(*fakeStorage) {}, shardName(3), "99", nil},
		"changed": {func(f *fakeStorage) {
			f.secrets[shardName(3)] = stored{resourceVersion: "99", data: []byte("x")}
		}, shardName(3), "99", []string{shardName(3)}},
		"label lost": {func(f *fakeStorage) {
			secret := f.secrets[shardName(3)]
			secret.misplaced = true
			f.secrets[shardName(3)] = secret
		}, shardName(3), "99", []string{shardName(3)}},
		"deleted":       {func(f *fakeStorage) { delete(f.secrets, shardName(3)) }, shardName(3), "", []string{shardName(3)}},
		"index deleted": {func(f *fakeStorage) { delete(f.secrets, indexName) }, indexName, "", []string{indexName}},
		"no Secret of the table": {func(f *fakeStorage) {
			f.secrets["other"] = stored{resourceVersion: "99"}
		}, "other", "99", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			b.mustFlush(t)
			b.put(t, shard)
			b.mustFlush(t)
			b.storage.writes = nil
			test.harm(b.storage)
			b.suspect(test.name, test.version)
			b.mustFlush(t)
			if !slices.Equal(b.storage.writes, test.wantWrites) {
				t.Errorf("wrote %v, want %v", b.storage.writes, test.wantWrites)
			}
			b.want(t, shard.Name)
		})
	}
}

func TestShardMadeBySomeoneElseIsRemoved(t *testing.T) {
	t.Parallel()
	b := open(t, newFakeStorage())
	b.mustFlush(t)
	b.storage.secrets[shardName(5)] = stored{resourceVersion: "99", data: []byte("x")}
	b.suspect(shardName(5), "99")
	b.mustFlush(t)
	if _, found := b.storage.secrets[shardName(5)]; found {
		t.Error("it is still there")
	}
	b.want(t)
}

func TestFullShard(t *testing.T) {
	t.Parallel()
	all := inShard(3, 40, 1000) // noise does not compress: that is more than there is room for
	b := open(t, newFakeStorage())
	b.encodeShard = func(entries []*routing.Entry) ([]byte, error) {
		data, err := routing.EncodeShard(entries)
		if err == nil && len(data) > 30_000 {
			return nil, routing.ErrShardFull
		}
		return data, err
	}
	b.put(t, all...)
	b.mustFlush(t)
	inTable := b.Len()
	if inTable == 0 || inTable >= len(all) || len(b.reviewed) != len(all)-inTable {
		t.Fatalf("%d of %d fit, %d are looked at again", inTable, len(all), len(b.reviewed))
	}
	refused := b.find(all, b.reviewed[0])
	if err := b.Put(refused); !errors.Is(err, ErrFull) || !b.Misfit(refused.Identity, 1) {
		t.Errorf("put what does not fit: %v, want %v", err, ErrFull)
	}

	// Deleting what never fitted leaves nothing behind, and makes no room.
	other := b.find(all, b.reviewed[1])
	b.Clear(keyOf(other), "")
	if b.Misfit(other.Identity, 1) || b.Len() != inTable {
		t.Errorf("%d entries after a deletion of none of them, want %d", b.Len(), inTable)
	}
	b.put(t, refused)
	b.mustFlush(t)
	if !b.Misfit(refused.Identity, 1) {
		t.Error("what did not fit does now")
	}

	// Someone who is in already grows beyond the room: the last valid entry stays, and waits.
	grown := *all[0]
	grown.Generation, grown.URL = 2, grown.URL+inShard(3, 1, 20_000)[0].URL
	b.put(t, &grown)
	b.reviewed = nil
	b.mustFlush(t)
	if got := b.Get(grown.Identity); got == nil || got.Generation != 1 || len(b.reviewed) != 1 {
		t.Fatalf("the entry that grew is %v; looked at again: %v", got, b.reviewed)
	}
	if err := b.Put(&grown); !errors.Is(err, ErrFull) {
		t.Fatalf("put: %v, want %v", err, ErrFull)
	}
	b.put(t, routing.Hold(b.Get(grown.Identity), 2, "RoutingTableFull"))
	b.mustFlush(t)
	if got := b.Get(grown.Identity); got.Waiting != "RoutingTableFull" || got.Generation != 2 {
		t.Errorf("it does not wait: %+v", got.Waiting)
	}

	// A deletion makes room, and those who did not fit are looked at again.
	b.reviewed = nil
	b.Clear(keyOf(all[1]), "")
	if len(b.reviewed) == 0 || b.Misfit(refused.Identity, 1) {
		t.Fatal("nobody is looked at again although there is room")
	}
	b.put(t, refused)
	b.mustFlush(t)
	if !slices.Contains(b.storage.content(t), refused.Name) {
		t.Error("what fits now is not in the table")
	}
}

func (b *bench) find(entries []*routing.Entry, key client.ObjectKey) *routing.Entry {
	for _, entry := range entries {
		if keyOf(entry) == key {
			return entry
		}
	}
	return nil
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFakeStorage())
		start := time.Now()
		b.storage.onWrite = func(string) { time.Sleep(100 * time.Millisecond) }
		if err := b.paced(t.Context(), b.storage); err != nil {
			t.Fatal(err)
		}
		if got, want := b.next.Sub(start), 100*time.Millisecond+flushInterval; got != want {
			t.Errorf("a quick flush is followed by one after %v, want %v", got, want)
		}
		b.next = time.Time{}
		if err := b.paced(t.Context(), b.storage); err != nil || !b.next.IsZero() {
			t.Errorf("a flush that wrote nothing delays the next until %v (%v)", b.next, err)
		}
		b.put(t, newEntry("one"))
		b.storage.onWrite = func(string) { time.Sleep(2 * time.Second) }
		start = time.Now()
		if err := b.paced(t.Context(), b.storage); err != nil {
			t.Fatal(err)
		}
		if got, want := b.next.Sub(start), (1+flushShare)*4*time.Second; got != want {
			t.Errorf("a slow flush is followed by one after %v, want %v", got, want)
		}
	})
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	var trigger Trigger
	early, late := client.ObjectKey{Name: "early"}, client.ObjectKey{Name: "late"}
	trigger.Add(early)
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	if err := trigger.Source().Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	trigger.Add(late, late)
	for _, want := range []client.ObjectKey{early, late} {
		if got, _ := queue.Get(); got.NamespacedName != want {
			t.Errorf("queued %v, want %v", got, want)
		}
	}
	if queue.Len() != 0 {
		t.Errorf("%d more are queued", queue.Len())
	}
}
