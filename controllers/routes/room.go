package routes

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Rules by which namespaces share a table:
//
//   - In each shard, a namespace may take as much as is free (package budget).
//   - An eighth of a shard is for entries that are there already and grow; new ones do not get it.
//   - An entry that is there, and does not grow, always fits: nobody pushes it out, and while it waits its room is kept.

// newcomersRoom is what new entries may fill of a shard.
const newcomersRoom = routing.ShardRoom / 8 * 7

// ErrFull rejects an entry that does not fit into its shard.
var ErrFull = &routing.Rejection{
	Reason:  v1alpha1.ReasonRoutingTableFull,
	Message: "the routing table has no room for this subscription: shorten its headers, delete subscriptions, or spread them over several WebhookDispatchers",
}

// ErrShare rejects an entry whose namespace has its share of a shard already.
var ErrShare = &routing.Rejection{
	Reason:  v1alpha1.ReasonRoutingTableFull,
	Message: "this namespace takes as much of the routing table as is left to all others: shorten the headers of its subscriptions, delete some, or spread them over several WebhookDispatchers",
}

// Limits are what one namespace may have in a table; 0 is no limit.
type Limits struct {
	// Subscriptions is how many entries.
	Subscriptions int64
	// Bytes is what they may cost together, as routing.Entry.Cost counts.
	Bytes int64
	// Created is when the subscription was created that the entry is of: older ones are tried first when there is room.
	Created time.Time
}

// usage is what a namespace has in a table.
type usage struct{ subscriptions, bytes int64 }

// admit rejects an entry that has no room or exceeds a limit, and notes it, so that it is looked at again when it may fit.
func (t *Table) admit(s *shard, entry *routing.Entry, limits Limits) error {
	if misfit, found := s.full[entry.Identity]; found && misfit.generation == entry.Generation && misfit.cost == 0 {
		return ErrFull // its shard could not be encoded with it
	}
	key, cost := client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}, int64(entry.Cost())
	if rejection := t.judge(s, entry.Identity, entry.Namespace, cost, limits); rejection != nil {
		t.byName[key] = entry.Identity
		s.full[entry.Identity] = misfit{
			subscription: key,
			generation:   entry.Generation,
			limits:       limits,
			cost:         cost,
		}
		return rejection
	}
	delete(s.full, entry.Identity)
	return nil
}

// judge returns why an entry of the given cost is not taken, nil if it is.
func (t *Table) judge(s *shard, identity, namespace string, cost int64, limits Limits) *routing.Rejection {
	before := s.entries[identity]
	growth, used, room := cost, t.usages[namespace], int64(newcomersRoom)
	if before != nil {
		growth -= int64(before.Cost())
		room = routing.ShardRoom
	}
	switch {
	case before != nil && growth <= 0:
		return nil
	case s.room+growth > room:
		return ErrFull
	case !budget.Fits(s.rooms[namespace], s.room, growth, room):
		return ErrShare
	case before == nil && limits.Subscriptions > 0 && used.subscriptions >= limits.Subscriptions:
		return exceeded("subscriptions", limits.Subscriptions, used.subscriptions, 1)
	case limits.Bytes > 0 && used.bytes+growth > limits.Bytes:
		return exceeded("configurationBytes", limits.Bytes, used.bytes, growth)
	}
	return nil
}

func exceeded(quota string, limit, used, more int64) *routing.Rejection {
	return &routing.Rejection{
		Reason: v1alpha1.ReasonQuotaExceeded,
		Message: fmt.Sprintf("the namespace's quota %s is %d, %d are used, and this subscription takes %d more: delete or shorten others, or have spec.quotas of the WebhookDispatcher raised",
			quota, limit, used, more),
	}
}

// set puts an entry into a shard, or removes it if it is nil, and keeps account of the room.
func (t *Table) set(s *shard, identity string, entry *routing.Entry) {
	if before := s.entries[identity]; before != nil {
		t.charge(s, before.Namespace, -1, -int64(before.Cost()))
		delete(s.entries, identity)
	}
	if entry != nil {
		t.charge(s, entry.Namespace, 1, int64(entry.Cost()))
		s.entries[identity] = entry
	}
}

func (t *Table) charge(s *shard, namespace string, subscriptions, bytes int64) {
	s.room += bytes
	if s.rooms[namespace] += bytes; s.rooms[namespace] == 0 {
		delete(s.rooms, namespace)
	}
	used := t.usages[namespace]
	used.subscriptions += subscriptions
	used.bytes += bytes
	if t.usages[namespace] = used; used == (usage{}) {
		delete(t.usages, namespace)
	}
}

// retry has those looked at again, the oldest first, that may fit now that a shard, or a namespace, takes less.
func (t *Table) retry(shrunk *shard, namespace string) {
	var again []misfit
	for i := range t.shards {
		s := &t.shards[i]
		for identity, misfit := range s.full {
			if s != shrunk && misfit.subscription.Namespace != namespace {
				continue
			}
			if misfit.cost > 0 && t.judge(s, identity, misfit.subscription.Namespace, misfit.cost, misfit.limits) != nil {
				continue
			}
			delete(s.full, identity)
			again = append(again, misfit)
		}
	}
	slices.SortFunc(again, func(a, b misfit) int {
		return cmp.Or(a.limits.Created.Compare(b.limits.Created), cmp.Compare(a.subscription.Name, b.subscription.Name))
	})
	for _, misfit := range again {
		t.review(misfit.subscription)
	}
}
