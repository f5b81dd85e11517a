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
	// tenant is that of namespace, the last one that was asked for.
	namespace string
	tenant    int64
}

// add adds the delivery of an event to a subscription. Its keys stay where they are.
func (p *pendingRows) add(e *entry, sub *delivery.Subscription, due int64) {
	if sub.Tenant != p.namespace {
		p.namespace, p.tenant = sub.Tenant, tenantOf(sub.Tenant)
	}
	f, order := &e.event().Fanout, uint64(0)
	if sub.Ordered {
		order = f.Order
	}
	p.subs, p.events = append(p.subs, sub.Key[:]), append(p.events, e.key[:])
	p.dues, p.sinces = append(p.dues, due), append(p.sinces, e.at)
	p.tenants, p.orders = append(p.tenants, p.tenant), append(p.orders, int64(order))
	p.sizes, p.histories = append(p.sizes, int32(f.Event.Size())), append(p.histories, due != e.at)
}

// clear forgets the deliveries, which were sent, and keeps their room.
func (p *pendingRows) clear() {
	clear(p.subs)
	clear(p.events)
	p.subs, p.events, p.dues, p.sinces = p.subs[:0], p.events[:0], p.dues[:0], p.sinces[:0]
	p.tenants, p.orders, p.sizes, p.histories = p.tenants[:0], p.orders[:0], p.sizes[:0], p.histories[:0]
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
}

func (p *pendingRows) queueNotices(s *Store, b *pgx.Batch) {
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
func (k *knownSubscriptions) unknown(entries []*entry, plans *planning) []*delivery.Subscription {
	k.Lock()
	defer k.Unlock()
	var unknown, before []*delivery.Subscription
	found := map[subscriptionKey]struct{}{}
	add := func(sub *delivery.Subscription) {
		key := subscriptionKey{sub.Key, sub.Tenant}
		if name, ok := k.names[key]; ok && name == sub.Name {
			return
		}
		if _, again := found[key]; !again {
			found[key] = struct{}{}
			unknown = append(unknown, sub)
		}
	}
	for _, e := range entries {
		subs := e.event().Subscriptions
		if e.at == 0 || store.SameSubscriptions(subs, before) {
			continue
		}
		before = subs
		for _, sub := range subs {
			add(sub)
		}
	}
	if plans != nil {
		plans.subscriptions(add)
	}
	return unknown
}

// add notes that these are stored.
func (k *knownSubscriptions) add(subs []*delivery.Subscription) {
	k.Lock()
	defer k.Unlock()
	if k.names == nil || len(k.names) > maxKnown {
		k.names = map[subscriptionKey]string{}
	}
	for _, sub := range subs {
		k.names[subscriptionKey{sub.Key, sub.Tenant}] = sub.Name
	}
}
