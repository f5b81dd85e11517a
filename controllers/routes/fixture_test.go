package routes

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// fakeStorage keeps Secrets in memory and counts what is done to them.
type fakeStorage struct {
	secrets map[string]stored
	writes  []string
	removed []string
	reads   int
	lists   int
	fail    map[string]error // by name
	version int
	onWrite func(name string) // before a write
}

func newFakeStorage() *fakeStorage {
	return &fakeStorage{secrets: make(map[string]stored), fail: make(map[string]error)}
}

func (f *fakeStorage) list(_ context.Context, each func(string, *stored)) error {
	f.lists++
	for name, err := range f.fail {
		if name != indexName {
			return err
		}
	}
	for _, name := range sorted(f.secrets) {
		if secret := f.secrets[name]; !secret.misplaced {
			each(name, &secret)
		}
	}
	return nil
}

func (f *fakeStorage) read(_ context.Context, name string) (*stored, error) {
	f.reads++
	if err := f.fail[name]; err != nil {
		return nil, err
	}
	secret, found := f.secrets[name]
	if !found {
		return nil, nil
	}
	return &secret, nil
}

func (f *fakeStorage) write(_ context.Context, name string, wanted content) (string, error) {
	if f.onWrite != nil {
		f.onWrite(name)
	}
	if err := f.fail[name]; err != nil {
		return "", err
	}
	f.version++
	version := strconv.Itoa(f.version)
	f.secrets[name] = stored{resourceVersion: version, content: wanted}
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
		data := f.secrets[cmp.Or(index.Layout, routing.Small).ShardName("main", i)].data
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
		if err := b.Put(entry, Limits{}); err != nil {
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
		Patterns: []event.Pattern{event.All}, URL: "https://example.com/" + name, Keys: [][]byte{[]byte("a signing key of plain text")},
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

func (b *bench) find(entries []*routing.Entry, key client.ObjectKey) *routing.Entry {
	for _, entry := range entries {
		if keyOf(entry) == key {
			return entry
		}
	}
	return nil
}
