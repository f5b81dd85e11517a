package routes

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// entryIn returns an entry of a namespace in shard 3, with a header of so many bytes.
func entryIn(namespace string, k, size int) *routing.Entry {
	for i := 0; ; i++ {
		entry := newEntry(fmt.Sprintf("%s-%d-%d", namespace, k, i))
		if routing.ShardOf(entry.Identity) == 3 {
			entry.Namespace = namespace
			entry.Header = http.Header{"Authorization": {strings.Repeat("x", size)}}
			return entry
		}
	}
}

// fill puts entries of a namespace until one is not taken, and returns those that were, and that one with why.
func (b *bench) fill(t *testing.T, namespace string, size int) (taken []*routing.Entry, refused *routing.Entry, err error) {
	t.Helper()
	for k := range 10_000 {
		entry := entryIn(namespace, k, size)
		if err := b.Put(entry, Limits{}); err != nil {
			return taken, entry, err
		}
		taken = append(taken, entry)
	}
	t.Fatal("a table without end")
	return nil, nil, nil
}

// TestTableIsShared: one namespace, or several, fill a shard. Another's subscriptions are taken, and may rotate their keys,
// and nothing that stands is pushed out.
func TestTableIsShared(t *testing.T) {
	t.Parallel()
	for _, greedy := range []int{1, 3, 20} {
		t.Run(fmt.Sprint(greedy), func(t *testing.T) {
			t.Parallel()
			b := open(t, newFakeStorage())
			early := entryIn("early", 0, 100)
			b.put(t, early)
			standing := []string{early.Name}
			for i := range greedy {
				taken, _, err := b.fill(t, fmt.Sprintf("greedy-%d", i), 8<<10)
				if !errors.Is(err, ErrShare) && !errors.Is(err, ErrFull) {
					t.Fatalf("a full shard: %v", err)
				}
				for _, entry := range taken {
					standing = append(standing, entry.Name)
				}
			}
			late := entryIn("late", 0, 100)
			b.put(t, late)
			for _, entry := range []*routing.Entry{early, late} {
				rotated := *entry
				rotated.Keys, rotated.Revision = [][]byte{[]byte("another key of plain text")}, 2
				b.put(t, &rotated)
				grown := rotated
				grown.Header = http.Header{"Authorization": {strings.Repeat("x", 4<<10)}}
				grown.Generation = 2
				b.put(t, &grown)
			}
			b.reviewed = nil
			b.mustFlush(t)
			if len(b.reviewed) != 0 {
				t.Errorf("what was taken did not fit: %v", b.reviewed)
			}
			b.want(t, append(standing, late.Name)...)
		})
	}
}

// TestRoomOfWhatWaits: a subscription that lost its Secret gets its room back, although others wanted it.
func TestRoomOfWhatWaits(t *testing.T) {
	t.Parallel()
	b := open(t, newFakeStorage())
	victim := entryIn("victim", 0, 16<<10)
	b.put(t, victim)
	b.put(t, routing.Hold(b.Get(victim.Identity), 2, v1alpha1.ReasonSecretNotFound))
	for i := range 20 {
		_, _, _ = b.fill(t, fmt.Sprintf("greedy-%d", i), 1<<10)
	}
	b.mustFlush(t)
	b = open(t, b.storage, victim) // a new manager knows, too
	again := *victim
	again.Generation = 3
	b.put(t, &again)
	if b.shards[3].room > routing.ShardRoom {
		t.Errorf("%d bytes of %d are taken", b.shards[3].room, routing.ShardRoom)
	}
}

// TestRoomIsTriedAgain: what was not taken is looked at again once there is room, the oldest first, and forgotten once it
// is deleted.
func TestRoomIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := open(t, newFakeStorage())
	taken, refused, _ := b.fill(t, "greedy", 8<<10)
	if !b.Misfit(refused.Identity, 1) {
		t.Fatal("it is not known that it does not fit")
	}
	older, deleted := entryIn("greedy", 20_000, 8<<10), entryIn("greedy", 30_000, 8<<10)
	now := time.Now()
	for entry, created := range map[*routing.Entry]time.Time{refused: now, older: now.Add(-time.Hour), deleted: now.Add(-2 * time.Hour)} {
		if err := b.Put(entry, Limits{Created: created}); !errors.Is(err, ErrShare) {
			t.Fatalf("put: %v", err)
		}
	}
	b.Clear(keyOf(deleted), "")
	if len(b.shards[3].full) != 2 || len(b.reviewed) != 0 {
		t.Errorf("%d are known not to fit, want 2; looked at again: %v", len(b.shards[3].full), b.reviewed)
	}
	b.Clear(keyOf(taken[0]), "")
	if len(b.reviewed) != 2 || b.reviewed[0] != keyOf(older) {
		t.Errorf("looked at again: %v, want the oldest first", b.reviewed)
	}
	b.put(t, older)
	if err := b.Put(refused, Limits{}); !errors.Is(err, ErrShare) {
		t.Errorf("put: %v", err)
	}
	if room := b.shards[3].rooms["greedy"]; room != b.usages["greedy"].bytes || b.usages["greedy"].subscriptions != int64(len(taken)) {
		t.Errorf("the account says %d and %+v", room, b.usages["greedy"])
	}
}

// TestQuotas: over a quota nothing new is taken and nothing grows; what stands stays.
func TestQuotas(t *testing.T) {
	t.Parallel()
	two := Limits{Subscriptions: 2}
	b := open(t, newFakeStorage())
	first, second, third := newEntry("first"), newEntry("second"), newEntry("third")
	elsewhere := newEntry("elsewhere")
	elsewhere.Namespace = "other"
	for _, entry := range []*routing.Entry{first, second, elsewhere} {
		if err := b.Put(entry, two); err != nil {
			t.Fatal(err)
		}
	}
	rejected := func(entry *routing.Entry, limits Limits, message string) {
		t.Helper()
		rejection, _ := errors.AsType[*routing.Rejection](b.Put(entry, limits))
		if rejection == nil || rejection.Reason != v1alpha1.ReasonQuotaExceeded || !strings.Contains(rejection.Message, message) {
			t.Errorf("got %v, want QuotaExceeded with %q", rejection, message)
		}
	}
	rejected(third, two, "quota subscriptions is 2, 2 are used")

	changed := *second
	changed.Generation, changed.Patterns = 2, slices.Clone(changed.Patterns)
	if err := b.Put(&changed, Limits{Subscriptions: 1}); err != nil {
		t.Errorf("the quota was lowered, and what stands is pushed out: %v", err)
	}
	used := b.usages["clinic"].bytes
	grown := changed
	grown.Generation, grown.Header = 3, http.Header{"A": {strings.Repeat("x", 1000)}}
	rejected(&grown, Limits{Bytes: used + 100}, fmt.Sprintf("quota configurationBytes is %d, %d are used", used+100, used))
	if b.Get(second.Identity).Generation != 2 {
		t.Error("the entry before did not stay")
	}
	b.reviewed = nil
	b.Clear(keyOf(first), "")
	if !slices.Contains(b.reviewed, keyOf(third)) {
		t.Errorf("looked at again: %v", b.reviewed)
	}
	if err := b.Put(third, two); err != nil {
		t.Errorf("there is room: %v", err)
	}
}
