package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// history is everything that a seed decides: who is there, and what happens to them. It is data, so that a part of it can be
// left out and the rest run again.
type history struct {
	seed    uint64
	days    int
	tenants []tenantSpec
	sealed  bool          // the store is encrypted
	keeps   time.Duration // for how long what was delivered is kept
	quota   routing.Quota // of each tenant
	steps   []step        // in the order of their time
}

// tenantSpec is a namespace. All is well with the endpoints of the first one, always.
type tenantSpec struct {
	name    string
	healthy bool
	subs    []subSpec
}

// subSpec is a subscription.
type subSpec struct {
	name string
	kind kind
	// attempts after which a delivery is given up; 0 for none.
	attempts int32
	inFlight int32
}

// kind is what a subscription asks for.
type kind int

const (
	everything kind = iota
	filtered        // events whose data says so
	ordered
	planned // at the time that data names, by key, cancelled by what is deleted
)

func (k kind) String() string {
	return [...]string{"everything", "filtered", "ordered", "planned"}[k]
}

// action is what a step does.
type action int

const (
	publish   action = iota
	repeat           // publishes again what was acknowledged
	remove           // a subscription
	add              // it again, as another one
	rotate           // its key
	mood             // of an endpoint
	weatherOf        // of the connections to an endpoint, or to the API
	cut              // all of these
	outage           // of the API server
	revoke           // a producer's token
	trespass         // publishes with a token that does not allow it
	operate          // cancels a delivery, sends it now, replays it
	rekey            // the store is encrypted by another key
	disks            // is slow, full, broken
	stop             // in order
	crash            // kill -9, or the power
)

func (a action) String() string {
	return [...]string{"publish", "repeat", "remove", "add", "rotate", "endpoint", "network", "cut", "outage", "revoke", "trespass", "operate", "rekey", "disk", "stop", "crash"}[a]
}

// step is one thing that happens. Its fields mean what its action makes of them.
type step struct {
	at          time.Duration
	do          action
	tenant, sub int
	lasts       time.Duration
	n           int // a resource, a number of events, of writes, of percent
	count       int
	how         string
	size        int           // of what a producer sends beside, in bytes
	plan        time.Duration // how far ahead what is planned is due
	weather     weather
}

// String is a step as a report shows it.
func (s step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10v %-8s", s.at.Round(time.Millisecond), s.do)
	switch s.do {
	case publish, repeat:
		fmt.Fprintf(&b, " tenant %d: %s of resource %d, %d events of %d bytes, due in %v", s.tenant, s.how, s.n, s.count, s.size, s.plan.Round(time.Second))
	case remove, add, rotate:
		fmt.Fprintf(&b, " tenant %d, subscription %d", s.tenant, s.sub)
	case mood:
		fmt.Fprintf(&b, " tenant %d, subscription %d: %s for %v", s.tenant, s.sub, s.how, s.lasts.Round(time.Second))
	case weatherOf, cut:
		fmt.Fprintf(&b, " %s %+v for %v", s.target(), s.weather, s.lasts.Round(time.Second))
	case outage:
		fmt.Fprintf(&b, " of the API server for %v", s.lasts.Round(time.Second))
	case operate:
		fmt.Fprintf(&b, " tenant %d: %s, the %dth", s.tenant, operations[s.n%len(operations)].name, s.n)
	case revoke, trespass:
		fmt.Fprintf(&b, " tenant %d", s.tenant)
	case disks:
		fmt.Fprintf(&b, " %s for %v, after %d writes", s.how, s.lasts.Round(time.Second), s.n)
	case rekey:
	case stop:
		fmt.Fprintf(&b, " for %v", s.lasts.Round(time.Millisecond))
	case crash:
		fmt.Fprintf(&b, " after %d writes, %d %% of what was not synced stays, for %v", s.n, s.count, s.lasts.Round(time.Millisecond))
	}
	return b.String()
}

// What a step is about that is about no endpoint.
const toAPI, toCluster = -1, -2

// target is the address that a step is about.
func (s step) target() string {
	switch s.tenant {
	case toAPI:
		return apiAddress
	case toCluster:
		return clusterAddress
	}
	return endpointAddress(s.tenant, s.sub)
}

// String is the whole history.
func (h *history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  encrypted: %t, delivered are kept for %v, quota: %+v\n", h.sealed, h.keeps, h.quota)
	for i, t := range h.tenants {
		fmt.Fprintf(&b, "  tenant %d:", i)
		for _, s := range t.subs {
			fmt.Fprintf(&b, " %s", s.kind)
			if s.attempts > 0 {
				fmt.Fprintf(&b, "(%d attempts)", s.attempts)
			}
		}
		b.WriteByte('\n')
	}
	for _, s := range h.steps {
		fmt.Fprintf(&b, "  %v\n", s)
	}
	return b.String()
}

// keepAll is how long everything is kept that failed, and in most worlds what was delivered.
const keepAll = 720 * time.Hour

const day = 24 * time.Hour

// newHistory makes the history of a seed.
func newHistory(seed uint64, days int) *history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := &history{seed: seed, days: days}
	for i := range 2 + r.IntN(7) {
		h.tenants = append(h.tenants, newTenant(r, i))
	}
	h.keeps = []time.Duration{keepAll, keepAll, time.Hour, 5 * time.Hour}[r.IntN(4)]
	h.sealed = r.IntN(2) == 0
	if r.IntN(3) == 0 { // a request of the greatest size always fits
		h.quota = routing.Quota{EventsPerSecond: 1 + r.IntN(4), EventsBurst: 10, PendingDeliveries: 60 + r.Int64N(100), ScheduledDeliveries: 40 + r.Int64N(100)}
	}
	calm := r.IntN(4) == 0 // a world in which only machines fail
	busy := 40 + r.IntN(160)
	for range days * busy {
		h.steps = append(h.steps, h.publishing(r))
	}
	for range days * r.IntN(40) {
		h.steps = append(h.steps, step{at: h.moment(r), do: operate, tenant: r.IntN(len(h.tenants)), n: r.IntN(1000)})
	}
	for range days * r.IntN(12) {
		h.steps = append(h.steps, h.machine(r))
	}
	if !calm {
		for range days * r.IntN(40) {
			h.steps = append(h.steps, h.misfortune(r))
		}
	}
	slices.SortStableFunc(h.steps, func(a, b step) int { return int(a.at - b.at) })
	return h
}

func newTenant(r *rand.Rand, i int) tenantSpec {
	t := tenantSpec{name: fmt.Sprintf("clinic-%d", i), healthy: i == 0}
	for j := range 1 + r.IntN(4) {
		s := subSpec{name: fmt.Sprintf("sub-%d", j), kind: []kind{everything, filtered, ordered, planned, planned}[r.IntN(5)], inFlight: int32(1 + r.IntN(32))}
		if r.IntN(4) == 0 && i > 0 {
			s.attempts = int32(2 + r.IntN(4))
		}
		t.subs = append(t.subs, s)
	}
	return t
}

// moment is a time at which something happens: often when something else does, so that they race.
func (h *history) moment(r *rand.Rand) time.Duration {
	if n := len(h.steps); n > 0 && r.IntN(3) == 0 {
		return h.steps[r.IntN(n)].at + time.Duration(r.Int64N(int64(20*time.Millisecond)))
	}
	return time.Duration(r.Int64N(int64(time.Duration(h.days) * day)))
}

// publishing is something that a producer does.
func (h *history) publishing(r *rand.Rand) step {
	s := step{at: h.moment(r), tenant: r.IntN(len(h.tenants)), n: r.IntN(6), count: 1}
	if r.IntN(8) == 0 {
		s.count = 2 + r.IntN(5)
	}
	if r.IntN(12) == 0 {
		s.size = r.IntN(200 << 10)
	}
	s.how = []string{"created", "updated", "updated", "deleted"}[r.IntN(4)]
	switch r.IntN(4) {
	case 0: // it has passed
	case 1:
		s.plan = time.Duration(r.Int64N(int64(time.Minute)))
	default:
		s.plan = time.Duration(r.Int64N(int64(10 * time.Hour)))
	}
	if r.IntN(12) == 0 {
		s.do = repeat
	}
	return s
}

// machine is something that befalls the dispatcher's machine.
func (h *history) machine(r *rand.Rand) step {
	s := step{at: h.moment(r), lasts: time.Duration(r.Int64N(int64(5 * time.Minute)))}
	switch r.IntN(9) {
	case 8:
		s.do = rekey
	case 0, 1:
		s.do = stop
	case 2, 3, 4:
		s.do, s.count = crash, []int{0, 0, 50, 100}[r.IntN(4)]
		if r.IntN(2) == 0 {
			s.n = 1 + r.IntN(40)
		}
	case 5, 6:
		s.do, s.how, s.lasts = disks, []string{"slow", "full"}[r.IntN(2)], time.Duration(r.Int64N(int64(time.Hour)))
	default:
		s.do, s.how, s.lasts = disks, []string{"broken", "no space"}[r.IntN(2)], time.Duration(r.Int64N(int64(10*time.Minute)))
		s.n = r.IntN(60)
	}
	return s
}

// moods are how endpoints behave.
var moods = []string{"slow", "hanging", "failing", "throttled", "dripping", "flapping", "torn"}

// misfortune is something that befalls a tenant other than the first, or the network.
func (h *history) misfortune(r *rand.Rand) step {
	s := step{at: h.moment(r), lasts: time.Duration(r.Int64N(int64(4 * time.Hour)))}
	s.tenant = 1 + r.IntN(len(h.tenants)-1)
	s.sub = r.IntN(len(h.tenants[s.tenant].subs))
	switch r.IntN(9) {
	case 0, 1, 2:
		s.do, s.how = mood, moods[r.IntN(len(moods))]
	case 3, 4:
		s.do = weatherOf
		s.weather = []weather{{delay: 3 * time.Second}, {lost: true}, {cut: 50}}[r.IntN(3)]
		switch r.IntN(4) {
		case 0:
			s.tenant, s.lasts = toAPI, s.lasts/8
		case 1:
			s.tenant, s.lasts = toCluster, s.lasts/8
		}
	case 5:
		s.do = cut
		if r.IntN(2) == 0 {
			s.tenant = []int{toAPI, toCluster}[r.IntN(2)]
		}
	case 6:
		s.do = rotate
	case 7:
		s.do, s.n = []action{outage, revoke, trespass, trespass}[r.IntN(4)], r.IntN(100)
		s.tenant, s.lasts = r.IntN(len(h.tenants)), s.lasts/8
	default:
		s.do, s.sub = remove, len(h.tenants[s.tenant].subs)-1
		if r.IntN(2) == 0 {
			s.do = add
		}
		if s.sub == 0 { // a namespace without a subscription is none
			s.do = rotate
		}
	}
	return s
}
