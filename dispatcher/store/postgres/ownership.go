package postgres

import (
	"slices"
	"sync"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// ownership are the leases that this process holds.
type ownership struct {
	sync.Mutex
	epochs map[int]int64 // by shard
	peers  bool          // whether there are other members
	// announced is the revision of the routing table that this process works by, slowest the oldest that a member does.
	announced, slowest int64
	// settings is the generation of the settings that this process works by, oldest the oldest that a member does.
	settings, oldest int64
	leaving          bool
	// tell tells the owner that works here of a backlog; nil while there is none.
	tell func(delivery.Backlog)
}

// Announce tells the other dispatchers by which revision of the routing table this one works.
func (s *Store) Announce(revision int64) {
	s.ownership.Lock()
	defer s.ownership.Unlock()
	s.ownership.announced = revision
}

// Slowest is the oldest revision that a live dispatcher works by, as far as this one knows.
func (s *Store) Slowest() int64 {
	s.ownership.Lock()
	defer s.ownership.Unlock()
	return s.ownership.slowest
}

// AnnounceSettings tells the other dispatchers by which generation of the settings this one works.
func (s *Store) AnnounceSettings(generation int64) {
	s.ownership.Lock()
	defer s.ownership.Unlock()
	s.ownership.settings = generation
}

// OldestSettings is the oldest generation that a live dispatcher works by, as far as this one knows; 0 if one of them does
// not say.
func (s *Store) OldestSettings() int64 {
	s.ownership.Lock()
	defer s.ownership.Unlock()
	return s.ownership.oldest
}

// epoch of the shard's lease, and false if this process has none, or is giving it back.
func (o *ownership) epoch(shard int) (int64, bool) {
	o.Lock()
	defer o.Unlock()
	epoch, ok := o.epochs[shard]
	return epoch, ok
}

func (o *ownership) set(shard int, epoch int64) {
	o.Lock()
	defer o.Unlock()
	if o.epochs == nil {
		o.epochs = map[int]int64{}
	}
	o.epochs[shard] = epoch
}

func (o *ownership) unset(shard int) {
	o.Lock()
	defer o.Unlock()
	delete(o.epochs, shard)
}

func (o *ownership) shards() []int {
	o.Lock()
	defer o.Unlock()
	all := make([]int, 0, len(o.epochs))
	for shard := range o.epochs {
		all = append(all, shard)
	}
	slices.Sort(all)
	return all
}

func (o *ownership) setMembers(members []member) {
	o.Lock()
	defer o.Unlock()
	o.peers, o.slowest, o.oldest = len(members) > 1, o.announced, o.settings
	for _, m := range members {
		o.slowest = min(o.slowest, m.revision)
		if m.revision != leaving {
			o.oldest = min(o.oldest, m.settings)
		}
	}
}

// says is what this process tells the other members.
func (o *ownership) says() (revision, settings int64) {
	o.Lock()
	defer o.Unlock()
	if o.leaving {
		return leaving, o.settings
	}
	return o.announced, o.settings
}

func (o *ownership) setLeaving(is bool) {
	o.Lock()
	defer o.Unlock()
	o.leaving = is
}

func (o *ownership) hasPeers() bool {
	o.Lock()
	defer o.Unlock()
	return o.peers
}

// tellPlanned tells the owner that works here of planned deliveries of its shards. Those of others get notices.
func (o *ownership) tellPlanned(earliest map[event.SubscriptionKey]int64) {
	o.Lock()
	tell := o.tell
	o.Unlock()
	if tell == nil {
		return
	}
	for sub, due := range earliest {
		if _, owned := o.epoch(delivery.ShardOf(sub)); owned {
			tell(delivery.Backlog{Subscription: sub, Due: moment(due)})
		}
	}
}

func (o *ownership) setTell(tell func(delivery.Backlog)) {
	o.Lock()
	defer o.Unlock()
	o.tell = tell
}

// recheck leaves notices of deliveries to shards that were this process's when they were stored, and are not any more:
// their new owner may have looked for them before.
func (o *ownership) recheck(s *Store, quiet map[int]int64, deliveries func(yield func(event.SubscriptionKey, int64))) {
	lost := map[int]struct{}{}
	for shard, before := range quiet {
		if now, owned := o.epoch(shard); !owned || now != before {
			lost[shard] = struct{}{}
		}
	}
	if len(lost) == 0 {
		return
	}
	var rows pendingRows
	deliveries(func(sub event.SubscriptionKey, due int64) {
		if _, ok := lost[delivery.ShardOf(sub)]; ok {
			rows.notify(s, sub, due)
		}
	})
	if len(rows.shards) == 0 {
		return // they are ours again, and were read since
	}
	s.work.Go(func() {
		_, err := s.pool.Exec(s.closing, s.sql(saveNotices), rows.shards, rows.noticeSubs, rows.noticeDues)
		if err != nil && s.closing.Err() == nil {
			s.options.Logger.Info("A notice could not be left; its deliveries are found when they are overdue", "reason", textOf(err))
		}
	})
}
