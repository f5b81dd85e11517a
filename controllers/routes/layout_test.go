package routes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// population returns n entries of as many namespaces as given.
func population(n, namespaces int) []*routing.Entry {
	entries := make([]*routing.Entry, n)
	for i := range entries {
		entries[i] = newEntry(fmt.Sprintf("s%05d", i))
		entries[i].Namespace = fmt.Sprintf("clinic-%d", i%namespaces)
	}
	return entries
}

func namesOf(entries []*routing.Entry) []string {
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name
	}
	slices.Sort(names)
	return names
}

// outgrow puts so many entries into a table that it is to be divided anew.
func (b *bench) outgrow(t *testing.T) []*routing.Entry {
	t.Helper()
	b.manyEntries = 999
	entries := population(b.manyEntries+1, 50)
	b.put(t, entries...)
	return entries
}

// TestTableGrows: a table that has outgrown its shards is divided anew. Whoever reads it at any moment finds all routes.
func TestTableGrows(t *testing.T) {
	t.Parallel()
	b := open(t, newFakeStorage())
	entries := b.outgrow(t)
	early := entries[:400]
	for _, entry := range entries[400:] {
		b.Clear(keyOf(entry), "")
	}
	b.mustFlush(t)
	b.want(t, namesOf(early)...)
	if index, err := routing.DecodeIndex(b.storage.secrets[indexName].data); err != nil || index.Layout != routing.Small {
		t.Fatalf("the table is divided too early: %v, %v", index, err)
	}
	b.put(t, entries[400:]...)
	wants := [][]string{namesOf(early), namesOf(entries)}
	b.storage.onWrite = func(string) {
		if got := b.storage.content(t); !slices.Equal(got, wants[0]) && !slices.Equal(got, wants[1]) {
			t.Fatalf("a reader finds %d routes", len(got))
		}
	}
	b.mustFlush(t)
	b.storage.onWrite = nil
	b.want(t, namesOf(entries)...)
	index, err := routing.DecodeIndex(b.storage.secrets[indexName].data)
	if err != nil || index.Layout != routing.Large {
		t.Fatalf("the table has not grown: %v", err)
	}
	for name := range b.storage.secrets {
		if name != indexName && !strings.HasPrefix(name, "main-routes-256-") {
			t.Errorf("%s is left behind", name)
		}
	}
	again := open(t, b.storage, entries...)
	b.storage.writes = nil
	again.mustFlush(t)
	again.want(t, namesOf(entries)...)
	if len(b.storage.writes) > 0 || again.Len() != len(entries) {
		t.Errorf("a restart wrote %d Secrets of %d entries", len(b.storage.writes), again.Len())
	}
}

// atIndex stops a manager when all shards are written.
const atIndex = -1

// TestManagerStopsWhileTableGrows: wherever it stops, no route is missing, and its successor comes to the same end.
func TestManagerStopsWhileTableGrows(t *testing.T) {
	t.Parallel()
	for _, stop := range []int{0, 1, 100, 200, atIndex} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			entries := b.outgrow(t)
			held := entries[7]
			b.put(t, routing.Hold(b.Get(held.Identity), 1, "SecretNotFound"))
			b.layoutKept(t)
			before := b.storage.content(t)
			gone, writes := errors.New("the manager stops"), 0
			b.storage.onWrite = func(name string) {
				if writes++; writes > stop && stop != atIndex || name == indexName {
					b.storage.fail[name] = gone
				}
			}
			if err := b.flush(t.Context(), b.storage); !errors.Is(err, gone) {
				t.Fatal(err)
			}
			b.storage.onWrite = nil
			clear(b.storage.fail)
			if got := b.storage.content(t); !slices.Equal(got, before) {
				t.Fatalf("a dispatcher finds %d routes, want %d", len(got), len(before))
			}
			again := open(t, b.storage, entries...)
			again.manyEntries = b.manyEntries
			if entry := again.Get(held.Identity); entry == nil || entry.Waiting == "" {
				t.Error("the last valid spec of one that is not accepted is lost")
			}
			again.mustFlush(t)
			again.want(t, namesOf(entries)...)
			for name := range b.storage.secrets {
				if name != indexName && !strings.HasPrefix(name, "main-routes-256-") {
					t.Errorf("%s is left behind", name)
				}
			}
		})
	}
}

// layoutKept writes the table as it is, in the layout that it has.
func (b *bench) layoutKept(t *testing.T) {
	t.Helper()
	b.secretsLeft, b.bytesLeft = newAllowance(1e9, 1), newAllowance(1e12, 1)
	b.awaited++ // does not grow now
	b.mustFlush(t)
	b.awaited--
}

// TestOldTableIsRead: a table as an earlier version wrote it, with nothing beside its shards, is read and not written.
func TestOldTableIsRead(t *testing.T) {
	t.Parallel()
	entries := population(500, 5)
	index, shards, err := routing.EncodeTable(7, entries)
	if err != nil {
		t.Fatal(err)
	}
	storage := newFakeStorage()
	text, err := index.Encode()
	if err != nil || strings.Contains(string(text), "layout") {
		t.Fatalf("an index that earlier versions cannot read: %s, %v", text, err)
	}
	storage.secrets[indexName] = stored{resourceVersion: "1", content: content{data: text}}
	for i, shard := range shards {
		storage.secrets[shardName(i)] = stored{resourceVersion: "1", content: content{data: shard}}
	}
	b := open(t, storage, entries...)
	b.mustFlush(t)
	b.want(t, namesOf(entries)...)
	if len(storage.writes) > 0 {
		t.Errorf("wrote %v", storage.writes)
	}
}

// TestLoadListsOnce: a new dispatcher costs one list and one read, and so does a table.
func TestLoadListsOnce(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"new": 0, "a table": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			entries := population(n, 5)
			b.put(t, entries...)
			b.mustFlush(t)
			b.storage.reads, b.storage.lists = 0, 0
			open(t, b.storage, entries...)
			if b.storage.reads != 1 || b.storage.lists != 1 {
				t.Errorf("%d reads, %d lists", b.storage.reads, b.storage.lists)
			}
		})
	}
}

// TestSourcesAreRemembered: a manager finds what an entry was compiled from, but for one that waits, or a damaged shard.
func TestSourcesAreRemembered(t *testing.T) {
	t.Parallel()
	entries := population(300, 3)
	digest := func(i int) routing.SourcesDigest { return routing.NewSourcesDigest(fmt.Sprint(i)) }
	for i, entry := range entries {
		entry.Sources = digest(i)
	}
	b := open(t, newFakeStorage())
	b.put(t, entries...)
	b.put(t, routing.Hold(entries[0], 1, "SecretNotFound"))
	b.mustFlush(t)
	touched := *entries[1]
	touched.Sources = digest(1001)
	b.storage.writes = nil
	b.put(t, &touched)
	b.mustFlush(t)
	if len(b.storage.writes) > 0 {
		t.Errorf("wrote %v although no route changed", b.storage.writes)
	}
	again := open(t, b.storage, entries...)
	for i, entry := range entries {
		found := again.Keep(keyOf(entry), entry.Identity, 1, digest(i))
		if want := i != 0; (found != nil) != want {
			t.Errorf("%d: found %v", i, found)
		}
		if again.Keep(keyOf(entry), entry.Identity, 1, digest(i+1)) != nil || again.Keep(keyOf(entry), entry.Identity, 2, digest(i)) != nil {
			t.Errorf("%d is taken for what it is not", i)
		}
	}
	for name, secret := range b.storage.secrets {
		if name != indexName {
			secret.sources = append([]byte("x"), secret.sources[1:]...)
			b.storage.secrets[name] = secret
		}
	}
	damaged := open(t, b.storage, entries...)
	if damaged.Keep(keyOf(entries[2]), entries[2].Identity, 1, digest(2)) != nil {
		t.Error("digests of another shard are believed")
	}
	if damaged.Keep(keyOf(entries[2]), entries[2].Identity, 1, routing.SourcesDigest{}) != nil {
		t.Error("what is not known is taken for equal")
	}
}

// TestFlushIsBounded: a flush writes so much and no more; a tenant that changed one subscription is not behind one that
// changed thousands.
func TestFlushIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFakeStorage())
		entries := population(10_000, 1)
		b.secretsLeft.left = 10
		b.put(t, entries...)
		quiet := newEntry("quiet")
		quiet.Namespace = "quiet"
		b.put(t, quiet)
		b.changes = 0
		if err := b.paced(t.Context(), b.storage); err != nil {
			t.Fatal(err)
		}
		if n := len(b.storage.writes); n > 12 || b.changes != 1 {
			t.Errorf("%d Secrets written, and asked %d times for another flush", n, b.changes)
		}
		if !slices.Contains(b.storage.content(t), quiet.Name) {
			t.Error("a single change waits behind thousands")
		}
		start, flushes := time.Now(), 0
		for ; b.due() != nil; flushes++ {
			<-time.After(time.Until(b.next))
			if err := b.paced(t.Context(), b.storage); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("64 shards took %v in %d flushes", took, flushes)
		}
		if got := len(b.storage.content(t)); got != len(entries)+1 {
			t.Errorf("%d entries", got)
		}
	})
}

// TestBytesAreBounded: a table that changes all over, all the time, writes so many bytes a minute.
func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFakeStorage())
		b.encodeShard = func([]*routing.Entry) ([]byte, error) { return make([]byte, 800<<10), nil }
		entries := population(640, 1)
		written := 0
		b.storage.onWrite = func(name string) {
			if name != indexName {
				written += 800 << 10
			}
		}
		start := time.Now()
		for i := 0; time.Since(start) < 5*time.Minute; i++ {
			for _, entry := range entries {
				changed := *entry
				changed.Generation = int64(i + 2)
				b.put(t, &changed)
			}
			if err := b.paced(t.Context(), b.storage); err != nil {
				t.Fatal(err)
			}
			<-time.After(max(time.Second, time.Until(b.next)))
		}
		if most := 5*bytesPerMinute + bytesAtOnce + 5<<20; written > most {
			t.Errorf("%d MiB in 5 minutes, at most %d", written>>20, most>>20)
		}
	})
}
