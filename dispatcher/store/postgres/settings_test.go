package postgres_test

import "testing"

// TestOldestSettings: settings count as in force once every live dispatcher works by them, and none waits for one that left.
func TestOldestSettings(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	a, b := c.start("a"), c.start("b")
	both := func(want int64) func() bool {
		return func() bool { return a.store.OldestSettings() == want && b.store.OldestSettings() == want }
	}
	a.store.AnnounceSettings(5)
	c.eventually("one does not say", patience, both(0))
	b.store.AnnounceSettings(4)
	c.eventually("the older one counts", patience, both(4))
	b.store.AnnounceSettings(5)
	c.eventually("both work by it", patience, both(5))
	a.store.AnnounceSettings(6)
	b.stop()
	c.eventually("the one that is left counts", patience, func() bool { return a.store.OldestSettings() == 6 })
}
