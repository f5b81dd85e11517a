package seeds

// Cached counts the tenants in memory.
func Cached(c *Cache) (n int) {
	for _, g := range []*generation{c.newer.Load(), c.older.Load()} {
		g.tenants.Range(func(_, _ any) bool { n++; return true })
	}
	return n
}
