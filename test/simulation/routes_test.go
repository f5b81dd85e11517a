package simulation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const apiAddress, opsAddress = "10.0.0.1:8080", "10.0.0.1:8081"

// endpoints are all in a range of their own, which is for benchmarks (RFC 2544): no machine has them.
const endpointRange = "198.18.0.0/15"

func endpointAddress(tenant, sub int) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(tenant), byte(1 + sub)}), 80).String()
}

// life is a subscription from when it is added to when it is removed. Added again, it is another one.
type life struct {
	uid         string
	tenant, sub int
	spec        subSpec
	born, died  time.Time // died is zero while it is there
	keys        []key     // the newest last
}

// key is a signing key, and when it was the newest.
type key struct {
	text  string
	since time.Time
}

// lives are the subscriptions as an API server has them, and the source of a dispatcher's routes.
type lives struct {
	history *history
	catalog *event.Catalog
	planted planted
	ghosts  []*life // planted: removed, and still in the table

	mu      sync.Mutex
	all     map[string]*life // by uid
	now     [][]*life        // by tenant and subscription; nil while it is removed
	changed chan struct{}
}

func newLives(h *history, plant planted) (*lives, error) {
	catalog, err := event.NewCatalog()
	if err != nil {
		return nil, err
	}
	l := &lives{history: h, catalog: catalog, planted: plant, all: map[string]*life{}, changed: make(chan struct{})}
	for i, t := range h.tenants {
		l.now = append(l.now, make([]*life, len(t.subs)))
		for j := range t.subs {
			l.add(i, j)
		}
	}
	return l, nil
}

func (l *lives) add(tenant, sub int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now[tenant][sub] != nil {
		return
	}
	made := &life{
		uid: fmt.Sprintf("00000000-0000-4000-8000-%04d%04d%04d", tenant, sub, len(l.all)), tenant: tenant, sub: sub,
		spec: l.history.tenants[tenant].subs[sub], born: time.Now(),
	}
	l.all[made.uid], l.now[tenant][sub] = made, made
	l.rekey(made)
}

func (l *lives) remove(tenant, sub int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone := l.now[tenant][sub]; gone != nil {
		gone.died, l.now[tenant][sub] = time.Now(), nil
		if l.planted == undeleted {
			l.ghosts = append(l.ghosts, gone)
		}
		l.announce()
	}
}

func (l *lives) rotate(tenant, sub int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if there := l.now[tenant][sub]; there != nil {
		l.rekey(there)
	}
}

func (l *lives) rekey(of *life) {
	of.keys = append(of.keys, key{text: fmt.Sprintf("%s/%d/%s", of.uid, len(of.keys), strings.Repeat("k", 8)), since: time.Now()})
	l.announce()
}

func (l *lives) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns a copy of a life.
func (l *lives) get(uid string) (life, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := l.all[uid]; found != nil {
		return *found, true
	}
	return life{}, false
}

// of returns copies of all lives of a tenant.
func (l *lives) of(tenant int) (all []life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, found := range l.all {
		if found.tenant == tenant {
			all = append(all, *found)
		}
	}
	return all
}

// validAt are the keys that may have signed what was sent lately.
func (f *life) validAt(at time.Time) (keys signature.Keys) {
	const lately = 2 * time.Minute
	for i := len(f.keys) - 1; i >= 0; i-- {
		parsed, err := signature.ParseKey([]byte(f.keys[i].text))
		if err != nil {
			panic(err)
		}
		keys = append(keys, parsed)
		if at.Sub(f.keys[i].since) > lately {
			break
		}
	}
	return keys
}

// Run delivers a table, and another after each change. It is a routing.Source.
func (l *lives) Run(ctx context.Context, deliver func(*routing.Table)) error {
	before := map[string]*routing.Route{}
	for revision := int64(1); ; revision++ {
		l.mu.Lock()
		changed := l.changed
		table, routes, err := l.table(before)
		l.mu.Unlock()
		if err != nil {
			return err
		}
		before, table.Revision = routes, revision
		deliver(table)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// table compiles what there is. A route that is as before is the same one.
func (l *lives) table(before map[string]*routing.Route) (*routing.Table, map[string]*routing.Route, error) {
	routes := map[string]*routing.Route{}
	var all []*routing.Route
	for _, tenant := range append(slices.Clone(l.now), l.ghosts) {
		for _, there := range tenant {
			if there == nil {
				continue
			}
			id := fmt.Sprint(there.uid, "/", len(there.keys))
			route := before[id]
			if route == nil {
				var err error
				if route, err = l.compile(there); err != nil {
					return nil, nil, err
				}
			}
			routes[id] = route
			all = append(all, route)
		}
	}
	table, err := routing.NewTable(all)
	return table, routes, err
}

func (l *lives) compile(of *life) (*routing.Route, error) {
	keys := of.keys
	if l.planted == mixedKey && of.tenant > 0 && len(of.keys) > 1 { // after a change, that of another tenant
		keys = l.now[0][0].keys
	}
	secrets := func(string) (map[string][]byte, bool, error) {
		return map[string][]byte{
			"now": []byte(keys[len(keys)-1].text), "before": []byte(keys[max(len(keys)-2, 0)].text),
		}, true, nil
	}
	entry, rejection, err := routing.Compile(l.manifest(of), routing.Sources{Secrets: secrets}, routing.Policy{Catalog: l.catalog, AllowHTTP: true})
	if err != nil {
		return nil, err
	}
	if rejection != nil {
		return nil, rejection
	}
	return entry.Route()
}

// manifest is what the tenant applied.
func (l *lives) manifest(of *life) *v1alpha1.WebhookSubscription {
	spec := v1alpha1.WebhookSubscriptionSpec{
		URL:    "http://" + endpointAddress(of.tenant, of.sub) + "/" + of.uid,
		Events: []string{"*"},
		Signing: v1alpha1.Signing{
			SecretRef:         v1alpha1.SecretKeyReference{Name: "keys", Key: "now"},
			PreviousSecretRef: &v1alpha1.SecretKeyReference{Name: "keys", Key: "before"},
		},
		Retry:    v1alpha1.Retry{MaxDelay: metav1.Duration{Duration: 30 * time.Minute}, MaxAge: metav1.Duration{Duration: maxAge}},
		Delivery: v1alpha1.Delivery{MaxInFlight: of.spec.inFlight},
	}
	if of.spec.attempts > 0 {
		spec.Retry.MaxAttempts = &of.spec.attempts
	}
	switch of.spec.kind {
	case everything:
	case filtered:
		if l.planted != unfiltered {
			spec.Filter = "event.data.chosen == true"
		}
	case ordered:
		if l.planted != unordered {
			spec.Delivery.Ordering = v1alpha1.OrderingByResource
		}
	case planned:
		at := "timestamp(event.data.at)"
		if l.planted == hasty {
			at += " - duration('10m')"
		}
		spec.Events = []string{"appointment.created", "appointment.updated"}
		spec.Schedule = &v1alpha1.Schedule{
			At: at, IfPast: v1alpha1.IfPastDeliver, Key: "event.data.resourceId",
			CancelOn: []v1alpha1.CancelRule{{Events: []string{"appointment.deleted"}}},
		}
	}
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.history.tenants[of.tenant].name, Name: of.spec.name, UID: types.UID(of.uid), Generation: int64(len(of.keys)),
		},
		Spec: spec,
	}
}

// maxAge is how old a delivery gets before it is given up: longer than any world lasts.
const maxAge = 168 * time.Hour
