package postgres

import (
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// pendingRows are deliveries that are about to be stored as never attempted, and notices of them.
type pendingRows struct {
	subs, events    [][]byte
	dues, sinces    []int64
	tenants, orders []int64
	sizes           []int32
	histories       []bool
	shards          []int32
	noticeSubs      [][]byte
	noticeDues      []int64
	noticed         map[event.SubscriptionKey]struct{}
	quiet           map[int]int64
}

func (p *pendingRows) add(d *delivery.PendingDelivery, tenant int64, history bool) {
	id := d.ID
	p.subs, p.events = append(p.subs, id.Subscription[:]), append(p.events, id.Event[:])
	p.dues, p.sinces = append(p.dues, nanos(d.Due)), append(p.sinces, nanos(d.Since))
	p.tenants, p.orders = append(p.tenants, tenant), append(p.orders, int64(d.Order))
	p.sizes, p.histories = append(p.sizes, int32(d.Size)), append(p.histories, history)
}

// notify leaves a notice for the owner of the subscription's shard, unless that is this process.
func (p *pendingRows) notify(s *Store, sub event.SubscriptionKey, due int64) {
	shard := delivery.ShardOf(sub)
	if epoch, owned := s.ownership.epoch(shard); owned {
		if p.quiet != nil {
			p.quiet[shard] = epoch
		}
		return
	}
	if _, done := p.noticed[sub]; done {
		return // the first is due first
	}
	if p.noticed == nil {
		p.noticed = map[event.SubscriptionKey]struct{}{}
	}
	p.noticed[sub] = struct{}{}
	p.shards, p.noticeSubs, p.noticeDues = append(p.shards, int32(shard)), append(p.noticeSubs, sub[:]), append(p.noticeDues, due)
}

func (p *pendingRows) queue(s *Store, b *pgx.Batch) {
	if len(p.subs) > 0 {
		b.Queue(s.sql(savePending), p.subs, p.dues, p.events, p.tenants, p.sinces, p.orders, p.sizes, p.histories)
	}
	if len(p.shards) > 0 {
		b.Queue(s.sql(saveNotices), p.shards, p.noticeSubs, p.noticeDues)
	}
}

// knownSubscriptions are those whose names are stored. Rows of them are never deleted.
type knownSubscriptions struct {
	sync.Mutex
	names map[subscriptionKey]string
}

// subscriptionKey: should a manifest use one uid in two namespaces, both list only their own events.
type subscriptionKey struct {
	sub       event.SubscriptionKey
	namespace string
}

// maxKnown bounds the memory for them.
const maxKnown = 1 << 18

// unknown returns the subscriptions of entries that are to be stored, each once.
func (k *knownSubscriptions) unknown(entries []*entry) []store.Subscription {
	k.Lock()
	defer k.Unlock()
	var unknown []store.Subscription
	found := map[subscriptionKey]struct{}{}
	for _, e := range entries {
		if e.at == 0 {
			continue
		}
		for _, sub := range e.event().Subscriptions {
			key := subscriptionKey{sub.Key, sub.Namespace}
			if name, ok := k.names[key]; ok && name == sub.Name {
				continue
			}
			if _, again := found[key]; !again {
				found[key] = struct{}{}
				unknown = append(unknown, sub)
			}
		}
	}
	return unknown
}

// add notes that these are stored.
func (k *knownSubscriptions) add(subs []store.Subscription) {
	k.Lock()
	defer k.Unlock()
	if k.names == nil || len(k.names) > maxKnown {
		k.names = map[subscriptionKey]string{}
	}
	for _, sub := range subs {
		k.names[subscriptionKey{sub.Key, sub.Namespace}] = sub.Name
	}
}
