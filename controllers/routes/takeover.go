package routes

import (
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Takeover is how far a dispatcher is with what its table has of a subscription. See docs/adr/0014.
type Takeover struct {
	// Awaited is set until the dispatcher reports a revision that has the entry in its present generation, with its deliveries
	// waiting or not as they do now.
	Awaited bool
	// Values is set until the dispatcher reports a revision that has what the entry took from Secrets, too, such as its keys. It is
	// set of all that is awaited.
	Values bool
	// Written is set of one that is awaited once an index names it.
	Written bool
	// Inherited is set if an earlier manager wrote the entry: then the dispatcher may have taken it over with an earlier revision
	// than is known.
	Inherited bool
}

// noted is an entry that the dispatcher has not taken over, as far as it reports.
type noted struct {
	subscription client.ObjectKey
	whole
	revision  int64 // of the first index that names it in this generation; 0 while none does
	complete  int64 // of the first index that names it with these values as well; 0 while none does
	settled   bool  // the generation is taken over, and the values are not
	inherited bool
}

// version is what of an entry a dispatcher must know for its subscription to count as programmed.
type version struct {
	generation int64
	waiting    bool
}

// whole is an entry's version with a stand-in for the values that come from Secrets. Whether a subscription counts as programmed
// does not depend on them; which keys sign does.
type whole struct {
	version
	values int64
}

func versionOf(entry *routing.Entry) whole {
	return whole{version{generation: entry.Generation, waiting: entry.Waiting != ""}, entry.Revision}
}

// placed is an entry that is in the Secret of its shard, and that no index may name yet.
type placed struct {
	identity string
	whole
}

// Takeover says how far the dispatcher is with the entry of an identity. What the table does not have is not awaited.
func (t *Table) Takeover(identity string) Takeover {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, found := t.notes[identity]
	return Takeover{Awaited: found && !n.settled, Values: found, Written: n.revision > 0, Inherited: n.inherited}
}

// report takes the revision that every pod of the dispatcher works by, 0 if they do not say. The subscriptions that waited for
// it are looked at.
func (t *Table) report(revision int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision != t.reported {
		t.reported = revision
		t.conclude()
	}
}

// conclude drops the notes of what the dispatcher has taken over.
func (t *Table) conclude() {
	var taken []client.ObjectKey
	reached := func(revision int64) bool { return revision > 0 && revision <= t.reported }
	for identity, n := range t.notes {
		switch {
		case reached(n.complete):
			delete(t.notes, identity)
		case reached(n.revision) && !n.settled:
			n.settled = true
			t.notes[identity] = n
		default:
			continue
		}
		taken = append(taken, n.subscription)
	}
	if len(taken) > 0 {
		t.review(taken...)
	}
}

// note keeps that an entry was replaced, by none if it is nil, until the dispatcher has taken that over.
func (t *Table) note(identity string, before, entry *routing.Entry) {
	switch known, found := t.notes[identity]; {
	case entry == nil:
		delete(t.notes, identity)
	case before == nil || versionOf(before).version != versionOf(entry).version:
		t.notes[identity] = noted{subscription: nameOf(entry), whole: versionOf(entry)}
	case versionOf(before) == versionOf(entry):
	case found: // how far the generation is, stands
		known.whole, known.complete = versionOf(entry), 0
		t.notes[identity] = known
	default:
		t.notes[identity] = noted{subscription: nameOf(entry), whole: versionOf(entry), settled: true}
	}
}

// takeBack notes that an entry is the one before again, which the present index names at the latest.
func (t *Table) takeBack(identity string, before *routing.Entry) {
	delete(t.notes, identity)
	if before != nil && t.index.Revision > t.reported {
		t.notes[identity] = noted{subscription: nameOf(before), whole: versionOf(before), revision: t.index.Revision, complete: t.index.Revision}
	}
}

// inherit notes what was loaded and may not be taken over: a shard that the index does not name as it is, and all of the table
// while the dispatcher is behind, because any of it may be of the newest revision.
func (t *Table) inherit() {
	for i := range t.shards {
		s, revision := &t.shards[i], t.index.Revision
		switch {
		case s.written.hash != t.index.Shards[i]:
			revision = 0
		case revision <= t.reported:
			continue
		}
		for identity, entry := range s.entries {
			t.notes[identity] = noted{subscription: nameOf(entry), whole: versionOf(entry), revision: revision, complete: revision, inherited: true}
		}
	}
}

// place keeps what was written of the entries that changed until an index names it.
func (t *Table) place(changed map[string]*routing.Entry, written []*routing.Entry) {
	for _, entry := range written {
		if _, found := changed[entry.Identity]; found {
			t.placed = append(t.placed, placed{entry.Identity, versionOf(entry)})
		}
	}
}

// indexed notes that the present index names what was written.
func (t *Table) indexed() {
	for _, p := range t.placed {
		n, found := t.notes[p.identity]
		if !found {
			continue
		}
		if n.revision == 0 && n.version == p.version {
			n.revision = t.index.Revision
		}
		if n.complete == 0 && n.whole == p.whole {
			n.complete = t.index.Revision
		}
		t.notes[p.identity] = n
	}
	t.placed = nil
	for identity, n := range t.notes {
		if n.inherited && n.revision == 0 { // all that was loaded is in it
			n.revision, n.complete = t.index.Revision, t.index.Revision
			t.notes[identity] = n
		}
	}
	t.conclude()
}

func nameOf(entry *routing.Entry) client.ObjectKey {
	return client.ObjectKey{Namespace: entry.Namespace, Name: entry.Name}
}
