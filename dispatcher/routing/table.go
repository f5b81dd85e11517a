package routing

import (
	"fmt"
	"iter"
	"slices"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Table is the set of routes a dispatcher works by. It is immutable and safe for concurrent use once its source has
// handed it on.
type Table struct {
	// Revision of the table, as its source counts; larger is newer.
	Revision int64
	// Stale is set if the table may lack subscriptions that exist, and so must not be taken as the deletion of those
	// that it lacks: it was read from disk, because its source could not be read yet, or a part of its source cannot be.
	Stale bool
	// Problems are what the source found that keeps manifests from being routed as they are written.
	Problems []Problem

	routes []*Route
	byKey  map[event.SubscriptionKey]*Route
	// namespaces are those of the routes, each with its tenant; "" if routes of several tenants name it, because a
	// namespace was deleted and made again a moment ago.
	namespaces map[string]string
	quotas     map[string]*Quota // by tenant, where it is not the dispatcher's
	spans      map[selector]span
	// matches holds the subscriptions of every selector, one span behind the other: a slice of its own for each would
	// cost more than what it holds.
	matches []*delivery.Subscription
	// rules holds the rules of each of matches; nil if no route has any.
	rules []*Rules
	// cancels holds the routes whose schedules an event may cancel, by the patterns of cancelOn.
	cancels map[selector][]*Route
	// pulled are the routes whose consumers pull, by tenant and name.
	pulled map[named]*Route
	// operational is set if a route matches an operational type.
	operational bool
}

// Problem is one thing that a source could not use as it is written.
type Problem struct {
	// Namespace and Name of the resource; empty if the problem is with a file as a whole.
	Namespace, Name string
	// Source is the file it stands in, relative to the folder.
	Source string
	// Reason is one CamelCase word, for a subscription that of Accepted=False.
	Reason string
	// Message says what to do. It shows no value of a Secret and no URL.
	Message string
}

// selector is what a pattern selects of a tenant's: an exact type ("patient.created"), a family ("patient") or all
// ("").
type selector struct{ tenant, types string }

// named is a subscription as those know it who ask for it.
type named struct{ tenant, name string }

// span is a part of Table.matches, and of Table.rules.
type span struct{ from, to uint32 }

// NewTable returns the table of the given routes. It fails if two routes have the same key.
func NewTable(routes []*Route) (*Table, error) {
	t := &Table{
		routes:     slices.Clone(routes),
		byKey:      make(map[event.SubscriptionKey]*Route, len(routes)),
		namespaces: make(map[string]string),
		quotas:     make(map[string]*Quota),
	}
	total := 0
	for _, route := range routes {
		if other, taken := t.byKey[route.Key]; taken {
			return nil, fmt.Errorf("build the routing table: subscriptions %s/%s and %s/%s have the same key", other.Namespace, other.Name, route.Namespace, route.Name)
		}
		if route.Subscription == nil {
			route.Subscription = route.subscription()
		}
		t.byKey[route.Key] = route
		if other, taken := t.namespaces[route.Namespace]; taken && other != route.Tenant() {
			t.namespaces[route.Namespace] = ""
		} else {
			t.namespaces[route.Namespace] = route.Tenant()
		}
		if route.Endpoint.Pull {
			if t.pulled == nil {
				t.pulled = make(map[named]*Route)
			}
			t.pulled[named{route.Tenant(), route.Name}] = route
		}
		if route.Quota != nil {
			t.quotas[route.Tenant()] = route.Quota
		}
		total += len(route.Patterns)
	}
	t.index(total)
	t.indexCancels()
	return t, nil
}

// index fills spans and matches, for routes with the given number of patterns in all.
func (t *Table) index(total int) {
	counts, ruled := make(map[selector]span), false
	for _, route := range t.routes {
		for _, pattern := range uncovered(route.Patterns) { // so that no type meets two patterns of one route
			at := selectorOf(route.Tenant(), pattern)
			counts[at] = span{to: counts[at].to + 1}
			ruled = ruled || route.Rules != nil
			t.operational = t.operational || pattern.Resource() == event.Operational
		}
	}
	t.spans = counts
	t.matches = make([]*delivery.Subscription, total)
	next := uint32(0)
	for at, count := range t.spans {
		t.spans[at] = span{from: next, to: next}
		next += count.to
	}
	t.matches = t.matches[:next]
	if ruled {
		t.rules = make([]*Rules, next)
	}
	for _, route := range t.routes {
		for _, pattern := range uncovered(route.Patterns) {
			at := selectorOf(route.Tenant(), pattern)
			s := t.spans[at]
			t.matches[s.to] = route.Subscription
			if ruled {
				t.rules[s.to] = route.Rules
			}
			t.spans[at] = span{from: s.from, to: s.to + 1}
		}
	}
}

func selectorOf(tenant string, p event.Pattern) selector {
	switch {
	case p == event.All:
		return selector{tenant, ""}
	case p.IsFamily():
		return selector{tenant, p.Resource()}
	default:
		return selector{tenant, string(p)}
	}
}

// noSelector is the types of no selector.
const noSelector = "."

// selections are the types of the selectors that match typ: itself, its family, and all where it is one of those.
func selections(typ event.Type) [3]string {
	all := ""
	if typ.IsOperational() {
		all = noSelector
	}
	return [...]string{string(typ), typ.Resource(), all}
}

// Match appends to into the subscriptions of a tenant that match a type, each once: those by the exact type first,
// then those by its family, then those by all. It costs by what it returns. With a nil into, the result may be the
// table's own: it is not to be written.
func (t *Table) Match(tenant string, typ event.Type, into []*delivery.Subscription) []*delivery.Subscription {
	for _, types := range selections(typ) {
		s, ok := t.spans[selector{tenant, types}]
		switch {
		case !ok:
		case into == nil:
			into = t.matches[s.from:s.to:s.to]
		default:
			into = append(into, t.matches[s.from:s.to]...)
		}
	}
	return into
}

// Rules returns the rules of what Match returns, each in its place, nil where a subscription has none. It returns nil if none
// has any. The result may be the table's own: it is not to be written.
func (t *Table) Rules(tenant string, typ event.Type) (all []*Rules) {
	if t.rules == nil {
		return nil
	}
	ruled := false
	for _, types := range selections(typ) {
		s, ok := t.spans[selector{tenant, types}]
		if !ok {
			continue
		}
		part := t.rules[s.from:s.to:s.to]
		ruled = ruled || slices.ContainsFunc(part, func(r *Rules) bool { return r != nil })
		if all == nil {
			all = part
		} else {
			all = append(all, part...)
		}
	}
	if !ruled {
		return nil
	}
	return all
}

// indexCancels fills cancels.
func (t *Table) indexCancels() {
	for _, route := range t.routes {
		for _, pattern := range route.Rules.cancelPatterns() {
			if t.cancels == nil {
				t.cancels = make(map[selector][]*Route)
			}
			at := selectorOf(route.Tenant(), pattern)
			t.cancels[at] = append(t.cancels[at], route)
		}
	}
}

// Cancels returns the routes whose schedules name a type in cancelOn, each once, also those whose events do not match it. The
// result may be the table's own: it is not to be written.
func (t *Table) Cancels(tenant string, typ event.Type) (all []*Route) {
	if t.cancels == nil {
		return nil
	}
	for _, types := range selections(typ) {
		part := t.cancels[selector{tenant, types}]
		if all == nil {
			all = slices.Clip(part)
		} else {
			all = append(all, part...)
		}
	}
	return all
}

// Operational reports whether a subscription of any tenant matches an operational type.
func (t *Table) Operational() bool { return t.operational }

// Count returns how many subscriptions Match appends.
func (t *Table) Count(tenant string, typ event.Type) int {
	n := uint32(0)
	for _, types := range selections(typ) {
		s := t.spans[selector{tenant, types}]
		n += s.to - s.from
	}
	return int(n)
}

// Get returns the route with the given key, and false if the table has none.
func (t *Table) Get(key event.SubscriptionKey) (*Route, bool) {
	route, ok := t.byKey[key]
	return route, ok
}

// Named returns the tenant's route with the given name, and false if there is none. It costs a look where the consumer pulls, else
// it goes through all routes.
func (t *Table) Named(tenant, name string) (*Route, bool) {
	if route, ok := t.pulled[named{tenant, name}]; ok {
		return route, true
	}
	for _, route := range t.routes {
		if route.Name == name && route.Tenant() == tenant {
			return route, true
		}
	}
	return nil, false
}

// HasNamespace reports whether a namespace has a subscription: one that is routed, or one with a problem.
func (t *Table) HasNamespace(namespace string) bool {
	if _, ok := t.namespaces[namespace]; ok {
		return true
	}
	return slices.ContainsFunc(t.Problems, func(p Problem) bool { return p.Namespace == namespace })
}

// Tenant returns the tenant that a namespace is by the table, and false if it names none, or more than one.
func (t *Table) Tenant(namespace string) (tenant string, ok bool) {
	tenant = t.namespaces[namespace]
	return tenant, tenant != ""
}

// Namespace returns the name of the namespace that a tenant is; "" if the table has none of it. It costs by the namespaces.
func (t *Table) Namespace(tenant string) string {
	for namespace, of := range t.namespaces {
		if of == tenant {
			return namespace
		}
	}
	return ""
}

// Quota returns the tenant's quota where that is not the dispatcher's default; nil where it is.
func (t *Table) Quota(tenant string) *Quota { return t.quotas[tenant] }

// All yields every route once, in the order in which the table was given them.
func (t *Table) All() iter.Seq[*Route] { return slices.Values(t.routes) }

// Len is the number of routes.
func (t *Table) Len() int { return len(t.routes) }
