package budget

// Held is what the tenant holds.
func (b *Budget) Held(tenant string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tenants[tenant]
}
