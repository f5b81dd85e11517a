package ingest

import (
	"fmt"
	"testing"
)

// TestFairCacheKeepsTheOthers: an owner that fills the cache pushes out its own values, not another's.
func TestFairCacheKeepsTheOthers(t *testing.T) {
	t.Parallel()
	c := newFairCache[string, int](100)
	c.put("quiet", "quiet", 7)
	for i := range 1000 {
		c.put(fmt.Sprint("greedy", i), "greedy", i)
		if _, ok := c.get("greedy0"); !ok {
			t.Fatalf("the most recently used value was pushed out by the %dth", i)
		}
	}
	if got, ok := c.get("quiet"); !ok || got != 7 {
		t.Error("another owner's value was pushed out")
	}
	if c.len() > 100/2+1 {
		t.Errorf("one owner has %d of 100", c.len()-1)
	}
	for i := range 1000 { // with more owners than there is room for
		c.put(fmt.Sprint("many", i), fmt.Sprint(i), i)
		if _, ok := c.get(fmt.Sprint("many", i)); !ok {
			t.Fatalf("owner %d gets nothing", i)
		}
	}
	if c.len() > 100 {
		t.Errorf("%d values are kept", c.len())
	}
	c.put("quiet", "other", 8)
	if got, ok := c.get("quiet"); !ok || got != 8 {
		t.Errorf("a value that was set again is %d", got)
	}
	c.drop("quiet")
	c.drop("quiet")
	if _, ok := c.get("quiet"); ok {
		t.Error("a dropped value is kept")
	}
	if len(c.owners) > c.len() {
		t.Errorf("%d owners of %d values", len(c.owners), c.len())
	}
}
