package budget

import (
	"cmp"
	"slices"
	"sync"
)

// Budget is an amount that tenants share. It is safe for concurrent use.
type Budget struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	refused int64
	tenants map[string]int64 // what each holds; no tenant that holds nothing
}

// New returns a budget of the given amount.
func New(limit int64) *Budget {
	return &Budget{limit: limit, tenants: make(map[string]int64)}
}

// Take takes n for the tenant, or nothing. It fails if the tenant would hold more than is free without it.
func (b *Budget) Take(tenant string, n int64) bool { return b.take(tenant, n, b.limit) }

// TakeSpare is Take for what can be done without: it takes only of the given part of the budget, and leaves the rest to
// Take.
func (b *Budget) TakeSpare(tenant string, n, part int64) bool {
	return b.take(tenant, n, min(part, b.limit))
}

// TakeOver takes n for the tenant although its share does not allow it, as long as the budget is not used up. It is for
// the least that a tenant needs to go on.
func (b *Budget) TakeOver(tenant string, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used >= b.limit {
		b.refused++
		return false
	}
	b.used += n
	b.tenants[tenant] += n
	return true
}

func (b *Budget) take(tenant string, n, limit int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.tenants[tenant]
	if !Fits(held, b.used, n, limit) {
		b.refused++
		return false
	}
	b.used += n
	b.tenants[tenant] = held + n
	return true
}

// Fits reports whether a tenant that holds held of the used amount may take n more of a limit.
func Fits(held, used, n, limit int64) bool { return held+n <= limit-used }

// Give gives back n that the tenant holds.
func (b *Budget) Give(tenant string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if rest := b.tenants[tenant] - n; rest > 0 {
		b.tenants[tenant] = rest
	} else {
		delete(b.tenants, tenant)
	}
}

// Limit is the whole amount.
func (b *Budget) Limit() int64 { return b.limit }

// Used is what all tenants hold.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Refused counts the takes that failed.
func (b *Budget) Refused() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// Usage is what one tenant holds.
type Usage struct {
	Tenant string
	Held   int64
}

// Largest returns the n tenants that hold most, the largest first.
func (b *Budget) Largest(n int) []Usage {
	b.mu.Lock()
	all := make([]Usage, 0, len(b.tenants))
	for tenant, held := range b.tenants {
		all = append(all, Usage{Tenant: tenant, Held: held})
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(a.Tenant, b.Tenant))
	})
	return all[:min(n, len(all))]
}
