package routes

import (
	"errors"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

func (b *bench) wantTakeover(t *testing.T, entry *routing.Entry, want Takeover) {
	t.Helper()
	got := b.Takeover(entry.Identity)
	got.Written = false
	if got != want {
		t.Errorf("%s: %+v, want %+v", entry.Name, got, want)
	}
}

// wantReviewed takes what is to be looked at.
func (b *bench) wantReviewed(t *testing.T, want ...*routing.Entry) {
	t.Helper()
	got := b.reviewed
	b.reviewed = nil
	if len(got) != len(want) {
		t.Errorf("%v are looked at, want %d", got, len(want))
	}
	for _, entry := range want {
		if !slices.Contains(got, keyOf(entry)) {
			t.Errorf("%v are looked at, want %s", got, entry.Name)
		}
	}
}

var (
	takenOver = Takeover{}
	awaited   = Takeover{Awaited: true, Values: true}
	settled   = Takeover{Values: true}
	inherited = Takeover{Awaited: true, Values: true, Inherited: true}
)

// TestTakeover: an entry is taken over once the dispatcher reports a revision whose index named it as it is, and the subscription
// is looked at then.
func TestTakeover(t *testing.T) {
	t.Parallel()
	a, b := newEntry("a"), newEntry("b")
	table := open(t, newFakeStorage())
	table.put(t, a)
	table.wantTakeover(t, a, awaited)
	table.report(1 << 40) // of a table that nobody wrote yet
	table.wantTakeover(t, a, awaited)
	table.report(0)
	if table.Takeover(a.Identity).Written {
		t.Error("no index names it yet")
	}
	table.mustFlush(t)
	if !table.Takeover(a.Identity).Written {
		t.Error("the index names it")
	}
	first := table.index.Revision
	table.put(t, b)
	table.mustFlush(t)
	second := table.index.Revision
	table.report(first)
	table.wantReviewed(t, a)
	table.wantTakeover(t, a, takenOver)
	table.wantTakeover(t, b, awaited)
	table.report(second)
	table.wantReviewed(t, b)
	table.wantTakeover(t, b, takenOver)

	// Values that change leave it programmed; a generation does not, nor that deliveries wait, or do not any more.
	rotated := *a
	rotated.Keys, rotated.Revision = [][]byte{[]byte("another signing key of plain text")}, 5
	table.put(t, &rotated)
	table.wantTakeover(t, a, settled)
	changed := rotated
	changed.Generation = 2
	table.put(t, &changed)
	table.wantTakeover(t, a, awaited)
	table.put(t, routing.Hold(table.Get(b.Identity), 1, "SecretNotFound"))
	table.wantTakeover(t, b, awaited)
	table.mustFlush(t)
	table.report(table.index.Revision)
	table.wantReviewed(t, a, b)
	table.put(t, b)
	table.wantTakeover(t, b, awaited)
	table.Clear(keyOf(b), "")
	table.wantTakeover(t, b, takenOver)
	table.wantReviewed(t)
}

// TestValuesAreTakenOver: values from Secrets are noted until the dispatcher has them, and hold nothing else up.
func TestValuesAreTakenOver(t *testing.T) {
	t.Parallel()
	entry := newEntry("a")
	with := func(values int64) *routing.Entry {
		changed := *entry
		changed.Revision = values
		return &changed
	}
	table := open(t, newFakeStorage())
	table.put(t, entry)
	table.mustFlush(t)
	first := table.index.Revision
	table.put(t, with(2)) // before the dispatcher says that it has the first
	table.mustFlush(t)
	second := table.index.Revision
	table.report(first)
	table.wantReviewed(t, entry)
	table.wantTakeover(t, entry, settled)
	table.report(second)
	table.wantReviewed(t, entry)
	table.wantTakeover(t, entry, takenOver)

	table.put(t, with(3))
	table.storage.onWrite = func(name string) {
		if name == indexName {
			table.storage.onWrite = nil
			table.put(t, with(4)) // while the index of 3 is written
		}
	}
	table.mustFlush(t)
	table.report(table.index.Revision)
	table.wantReviewed(t)
	table.wantTakeover(t, entry, settled)
	table.mustFlush(t)
	table.report(table.index.Revision)
	table.wantReviewed(t, entry)
	table.wantTakeover(t, entry, takenOver)
}

// TestTakeoverIsOfWhatIsWritten: what changes while it is written, or cannot be written, is taken over with the index that has it.
func TestTakeoverIsOfWhatIsWritten(t *testing.T) {
	t.Parallel()
	entry := newEntry("a")
	changed := *entry
	changed.Generation = 2
	for name, test := range map[string]struct {
		disturb func(t *testing.T, b *bench)
		failing bool
	}{
		"changed while its shard is written": {func(t *testing.T, b *bench) {
			t.Helper()
			b.storage.onWrite = func(string) { b.storage.onWrite = nil; b.put(t, &changed) }
		}, false},
		"changed while the index is written": {func(t *testing.T, b *bench) {
			t.Helper()
			b.storage.onWrite = func(name string) {
				if name == indexName {
					b.storage.onWrite = nil
					b.put(t, &changed)
				}
			}
		}, false},
		"the shard cannot be written": {func(_ *testing.T, b *bench) { b.storage.fail[shardName(routing.ShardOf(entry.Identity))] = errAway }, true},
		"the index cannot be written": {func(_ *testing.T, b *bench) { b.storage.fail[indexName] = errAway }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			b.put(t, entry)
			test.disturb(t, b)
			if err := b.flush(t.Context(), b.storage); errors.Is(err, errAway) != test.failing {
				t.Fatalf("flush: %v", err)
			}
			b.report(max(b.index.Revision, 1))
			b.wantTakeover(t, entry, awaited)
			clear(b.storage.fail)
			b.mustFlush(t)
			b.wantTakeover(t, entry, awaited)
			b.reviewed = nil
			b.report(b.index.Revision)
			b.wantReviewed(t, entry)
			b.wantTakeover(t, entry, takenOver)
		})
	}
}

// TestReportBeforeTheAnswer: the dispatcher may report a revision before the manager knows that it has written it.
func TestReportBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	entry := newEntry("a")
	b := open(t, newFakeStorage())
	b.put(t, entry)
	b.storage.onWrite = func(name string) {
		if name == indexName {
			b.report(1 << 40)
		}
	}
	b.mustFlush(t)
	b.wantReviewed(t, entry)
	b.wantTakeover(t, entry, takenOver)
}

// TestInheritedTakeover: after a restart of the manager, what a dispatcher at the index's revision has is taken over, and what one
// behind it has is not known.
func TestInheritedTakeover(t *testing.T) {
	t.Parallel()
	a, b := newEntry("a"), newEntry("b")
	before := open(t, newFakeStorage())
	before.put(t, a, b)
	before.mustFlush(t)
	revision := before.index.Revision
	again := func(t *testing.T, reported int64) *bench {
		t.Helper()
		made := &bench{storage: before.storage}
		made.Table = newTable(dispatcher, func() {}, func(keys ...client.ObjectKey) { made.reviewed = append(made.reviewed, keys...) })
		made.reported = reported
		if err := made.load(t.Context(), made.storage, map[string]client.ObjectKey{a.Identity: keyOf(a), b.Identity: keyOf(b)}); err != nil {
			t.Fatal(err)
		}
		return made
	}
	at := again(t, revision)
	at.wantTakeover(t, a, takenOver)
	behind := again(t, revision-1)
	behind.wantTakeover(t, a, inherited)
	changed := *a
	changed.Generation = 2
	behind.put(t, &changed)
	behind.wantTakeover(t, a, awaited)
	behind.report(revision)
	behind.wantReviewed(t, b)
	behind.wantTakeover(t, b, takenOver)
	behind.wantTakeover(t, a, awaited)

	// The manager stopped after a shard, and before the index: the dispatcher does not have that shard.
	before.storage.fail[indexName] = errAway
	before.put(t, &changed)
	if err := before.flush(t.Context(), before.storage); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	clear(before.storage.fail)
	between := again(t, revision)
	between.wantTakeover(t, a, inherited)
	between.wantTakeover(t, b, takenOver)
	between.mustFlush(t)
	between.wantTakeover(t, a, inherited)
	between.report(between.index.Revision)
	between.wantTakeover(t, a, takenOver)
	between.wantReviewed(t, a)
}

// TestRefusedTakeover: what does not fit is as it was, and that was taken over.
func TestRefusedTakeover(t *testing.T) {
	t.Parallel()
	entry := newEntry("a")
	b := open(t, newFakeStorage())
	b.put(t, entry)
	b.mustFlush(t)
	b.report(b.index.Revision)
	b.encodeShard = func(entries []*routing.Entry) ([]byte, error) {
		if len(entries) > 0 && entries[0].Generation > 1 {
			return nil, routing.ErrShardFull
		}
		return routing.EncodeShard(entries)
	}
	grown := *entry
	grown.Generation = 2
	b.put(t, &grown)
	b.wantTakeover(t, entry, awaited)
	b.mustFlush(t)
	b.wantTakeover(t, entry, takenOver)
}

// TestReportIsOfTheTable: a report of a dispatcher of the same name that is gone, or of which there is no table yet, concerns nobody.
func TestReportIsOfTheTable(t *testing.T) {
	t.Parallel()
	entry := newEntry("a")
	b := open(t, newFakeStorage())
	b.uid = "present"
	b.put(t, entry)
	b.mustFlush(t)
	tables := NewTables(nil, nil)
	loaded := &loading{uid: b.uid}
	loaded.table.Store(b.Table)
	tables.tables[dispatcher] = loaded
	report := func(name string, uid types.UID, revision int64) {
		d := &v1alpha1.WebhookDispatcher{Status: v1alpha1.WebhookDispatcherStatus{ProgrammedRevision: revision}}
		d.Namespace, d.Name, d.UID = dispatcher.Namespace, name, uid
		tables.Report(d)
	}
	report("other", "present", b.index.Revision)
	report(dispatcher.Name, "earlier", b.index.Revision)
	b.wantTakeover(t, entry, awaited)
	report(dispatcher.Name, "present", b.index.Revision)
	b.wantTakeover(t, entry, takenOver)
	b.wantReviewed(t, entry)

	// What was not heard is found when the table is asked for.
	changed := *entry
	changed.Generation = 2
	b.put(t, &changed)
	b.mustFlush(t)
	d := &v1alpha1.WebhookDispatcher{Status: v1alpha1.WebhookDispatcherStatus{ProgrammedRevision: b.index.Revision}}
	d.Namespace, d.Name, d.UID = dispatcher.Namespace, dispatcher.Name, "present"
	if _, err := tables.Of(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	b.wantTakeover(t, entry, takenOver)
}
