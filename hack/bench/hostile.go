package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// hostile are the scenarios in which tenants and clients misbehave, and a healthy tenant is to notice nothing. -scale
// makes them smaller and shorter, for CI.
var hostile = []scenario{
	{name: "tenants-hang", work: "10,000 subscriptions that hang, in 1 tenant and in 1,000, 5 events each; a healthy tenant at 50/s", run: runTenantsHang, once: true, embedded: true,
		targets: join(both("1 tenant: ", "many tenants: ", func(prefix string) []target { return wellTargets(prefix, 2) }))},
	{name: "tenants-mixed", work: "100 tenants publish at full speed to endpoints that fail, hang, drip, answer 429; a healthy tenant at 10/s", run: runTenantsMixed, once: true, embedded: true,
		targets: append(wellTargets("", 3), target{"healthy refused", false, 0})},
	{name: "uploads", work: "slow uploads, idle and half-header connections, junk tokens, from 1 and from 50 addresses; another tenant publishes at 50/s", run: runUploads, once: true, embedded: true,
		targets: uploadTargets()},
	{name: "fanout-memory", work: "fan-out 1 to 2,000 in batches of 200, 16 publishers; then 8 MB arrays to 1,000 endpoints that hang, 32 publishers; 1 GiB", run: runFanOutMemory, once: true, embedded: true,
		targets: join(both("small: ", "large: ", memoryTargets))},
	{name: "full-volume", work: "a volume filled by publishes, deletion of a subscription and replays, kill -9, restarts with no byte free", run: runFullVolume, once: true, embedded: true,
		targets: []target{{"lost", false, 0}, {"starts that failed", false, 0}, {"recovered (0 or 1)", true, 1}}},
	{name: "soak", work: "all of it at once for a time (-for), with subscriptions edited, replays, and kill -9 (-kill-every)", run: runSoak, once: true, embedded: true, onlyNamed: true,
		targets: []target{
			{"lost", false, 0}, {"crossed tenants", false, 0}, {"killed for memory", false, 0}, {"ended by itself", false, 0}, {"healthy answered 429", false, 0},
			{"growth of resident (%)", false, 10}, {"growth of descriptors (%)", false, 10}, {"growth of goroutines (%)", false, 10},
		}},
	{name: "rates", work: "one by one, batch and fan-out, this binary and an older one (-base) in turn", run: runRates, onlyNamed: true,
		targets: []target{{"single over base", true, 0.98}, {"batch over base", true, 0.98}, {"fanout over base", true, 0.98}}},
}

// both applies targets to two prefixes.
func both(first, second string, targets func(prefix string) []target) [][]target {
	return [][]target{targets(first), targets(second)}
}

func join(all [][]target) (joined []target) {
	for _, targets := range all {
		joined = append(joined, targets...)
	}
	return joined
}

// wellTargets are what a healthy tenant is to be spared.
func wellTargets(prefix string, times float64) []target {
	return []target{{prefix + "p99 over p99 without", false, times}, {prefix + "healthy missing", false, 0}, {prefix + "killed for memory", false, 0}}
}

func memoryTargets(prefix string) []target {
	return []target{{prefix + "peak resident (% of the limit)", false, 90}, {prefix + "killed for memory", false, 0}, {prefix + "neither delivered nor pending", false, 0}}
}

// healthyGroup is the number of the healthy tenant, behind all others.
const healthyGroup = 5000

var healthyTenant = tenant{group: healthyGroup, subscriptions: []subscription{{behaviour: behaviourOK}}}

// crowd returns tenants 0…n-1, whose subscriptions of(i) gives, and the healthy one.
func crowd(n int, of func(i int) []subscription) []tenant {
	all := []tenant{healthyTenant}
	for i := range n {
		all = append(all, tenant{group: i, subscriptions: of(i)})
	}
	return all
}

// runTenantsHang is about endpoints that accept and never answer: all of one tenant's, and of many tenants'.
func runTenantsHang(ctx context.Context, b *bench, m *measured) error {
	subscriptions := b.share(10_000, 1200)
	if most := int(b.descriptors) * 4 / 5; subscriptions > most {
		b.progress("  %d descriptors: %d subscriptions that hang, not %d", b.descriptors, most, subscriptions)
		subscriptions = most
	}
	m.add("subscriptions that hang", float64(subscriptions))
	for _, layout := range []struct {
		prefix  string
		tenants int
	}{{"1 tenant: ", 1}, {"many tenants: ", min(1000, subscriptions/5)}} {
		if err := b.tenantsHang(ctx, m, layout.prefix, layout.tenants, subscriptions/layout.tenants); err != nil {
			return fmt.Errorf("%s%w", layout.prefix, err)
		}
	}
	return nil
}

func (b *bench) tenantsHang(ctx context.Context, m *measured, prefix string, tenants, each int) error {
	const events = 5
	hanging := repeated(each, subscription{behaviourHang, "timeout: 60s"})
	s, err := b.newStage(ctx, props{tenants: crowd(tenants, func(int) []subscription { return hanging })})
	if err != nil {
		return err
	}
	defer s.end()
	without, err := s.measure(ctx, 50, b.spell(20*time.Second, 6*time.Second), nil)
	if err != nil {
		return err
	}
	// The hanging ones get their events while the healthy tenant is measured, so that what they take at first counts.
	l := s.newLoad(0, tenants, each, tenants*events, 4, 1)
	stop, err := s.beside(ctx, l, closed)
	if err != nil {
		return err
	}
	with, err := s.measure(ctx, 50, b.spell(90*time.Second, 12*time.Second), nil)
	if err != nil {
		return errors.Join(err, stop())
	}
	held, err := s.trap.held(ctx)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	with.compare(m, prefix, without, 2, 10)
	m.add(prefix+"requests that hang at the end", float64(held))
	s.limit.report(m, prefix)
	return s.alive()
}

// alive returns an error with the log's end if the dispatcher ended by itself, unless the bench killed it for its memory.
func (s *stage) alive() error {
	if s.gone() && s.limit.kills() == 0 {
		return fmt.Errorf("the dispatcher ended; its log:\n%s", s.logged())
	}
	return nil
}

// misbehaviours are those of the mixed tenants, in turn.
var misbehaviours = []string{behaviourFail, behaviourHang, behaviourDrip, behaviourBusy}

// runTenantsMixed lets tenants flood endpoints that all misbehave in their own ways.
func runTenantsMixed(ctx context.Context, b *bench, m *measured) error {
	const tenants = 100
	s, err := b.newStage(ctx, props{tenants: crowd(tenants, func(i int) []subscription {
		return repeated(2, subscription{behaviour: misbehaviours[i%len(misbehaviours)]})
	})})
	if err != nil {
		return err
	}
	defer s.end()
	without, err := s.measure(ctx, 10, b.spell(20*time.Second, 6*time.Second), nil)
	if err != nil {
		return err
	}
	l := s.newLoad(0, tenants, 2, b.share(8_000_000, 800_000)/tenants*tenants, tenants, 10) // more than can be accepted meanwhile
	stop, err := s.beside(ctx, l, closed)
	if err != nil {
		return err
	}
	started := time.Now()
	with, err := s.measure(ctx, 10, b.spell(time.Minute, 12*time.Second), nil)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	with.compare(m, "", without, 3, 20)
	m.add("others published/s", float64(l.acknowledged())/time.Since(started).Seconds())
	m.add("others refused for a while", float64(l.refused.Load()))
	s.limit.report(m, "")
	return s.alive()
}

func (l *load) acknowledged() (n int) {
	for i := range l.accepted {
		if l.accepted[i].Load() {
			n++
		}
	}
	return n
}

// The audit of a load of more deliveries than auditMost takes a sample of each tenant's subscriptions: a list of millions
// takes longer than the scenario.
const (
	auditMost   = 200_000
	auditSample = 10
)

// sampled returns the subscriptions of a tenant to audit, and the names to list them by.
func (l *load) sampled() (endpoints []int, names []string) {
	if l.acknowledged()*l.Fan <= auditMost {
		for k := range l.Fan {
			endpoints = append(endpoints, k)
		}
		return endpoints, []string{""}
	}
	n := min(l.Fan, auditSample)
	for i := range n {
		k := i * l.Fan / n
		endpoints, names = append(endpoints, k), append(names, fmt.Sprintf("endpoint-%d", k))
	}
	return endpoints, names
}

// delivery is one event's to one of a tenant's subscriptions.
type delivery struct{ number, endpoint int }

// lost counts the deliveries of acknowledged events that neither arrived nor are listed in one of the states, and those
// that arrived at another tenant's endpoint.
func (s *stage) lost(ctx context.Context, l *load, states ...string) (lost, crossed, pending int, err error) {
	listed := map[delivery]bool{}
	endpoints, names := l.sampled()
	for group := range l.Groups {
		for i := range len(names) * len(states) {
			name, state := names[i/len(states)], states[i%len(states)]
			err := s.listed(ctx, namespaceOf(l.first+group), name, state, func(event, subscription string) {
				id, ok := parseID([]byte(event))
				number, known := strings.CutPrefix(subscription, "endpoint-")
				if k, valid := atoi(number); ok && known && valid && id.run == l.Run {
					listed[delivery{id.number, k}] = true
				}
			})
			if err != nil {
				return 0, 0, 0, err
			}
		}
	}
	// The tally is read after the list: what was delivered meanwhile is in one of them.
	seen, err := s.trap.get(ctx, "arrivals", l.Run, nil)
	if err != nil {
		return 0, 0, 0, err
	}
	sum, err := s.trap.tally(ctx, l.Run)
	if err != nil {
		return 0, 0, 0, err
	}
	return l.missing(seen, endpoints, listed), sum.Misrouted, len(listed), nil
}

// missing counts the deliveries to some endpoints that were acknowledged, and neither seen nor listed.
func (l *load) missing(seen []byte, endpoints []int, listed map[delivery]bool) (n int) {
	for number := range l.accepted {
		if !l.accepted[number].Load() {
			continue
		}
		for _, k := range endpoints {
			if seen[number*l.Fan+k]&^failedBit == 0 && !listed[delivery{number, k}] {
				n++
			}
		}
	}
	return n
}

func atoi(text string) (int, bool) {
	n, ok := number([]byte(text))
	return int(n), ok
}
