package routes

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

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
	garbage := stored{resourceVersion: "x", content: content{data: []byte("garbage")}}
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
				<-time.After(time.Minute)
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
			f.secrets[shardName(3)] = stored{resourceVersion: "99", content: content{data: []byte("x")}}
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
	b.storage.secrets[shardName(5)] = stored{resourceVersion: "99", content: content{data: []byte("x")}}
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
	if err := b.Put(refused, Limits{}); !errors.Is(err, ErrFull) || !b.Misfit(refused.Identity, 1) {
		t.Errorf("put what does not fit: %v, want %v", err, ErrFull)
	}

	// Deleting what never fitted leaves nothing behind, and makes no room.
	other := b.find(all, b.reviewed[1])
	b.Clear(keyOf(other), "")
	if b.Misfit(other.Identity, 1) || b.Len() != inTable {
		t.Errorf("%d entries after a deletion of none of them, want %d", b.Len(), inTable)
	}
	if err := b.Put(refused, Limits{}); !errors.Is(err, ErrFull) {
		t.Errorf("what did not fit does now: %v", err)
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
	if err := b.Put(&grown, Limits{}); !errors.Is(err, ErrFull) {
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

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFakeStorage())
		start := time.Now()
		b.storage.onWrite = func(string) { <-time.After(100 * time.Millisecond) }
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
		for name, test := range map[string]struct{ write, want time.Duration }{
			"slow":      {2 * time.Second, 2 * 2 * 2 * time.Second}, // a shard and the index, and as long a pause
			"very slow": {time.Minute, 2*time.Minute + flushPause},
		} {
			b.put(t, newEntry(name))
			b.storage.onWrite = func(string) { <-time.After(test.write) }
			start = time.Now()
			if err := b.paced(t.Context(), b.storage); err != nil {
				t.Fatal(err)
			}
			if got := b.next.Sub(start); got != test.want {
				t.Errorf("a %s flush is followed by one after %v, want %v", name, got, test.want)
			}
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
