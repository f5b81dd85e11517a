package budget_test

import (
	"fmt"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/budget"
)

// TestShares: whatever the others take, a tenant that holds nothing gets as much as any of them has.
func TestShares(t *testing.T) {
	t.Parallel()
	for _, greedy := range []int{1, 2, 9, 99} {
		t.Run(fmt.Sprint(greedy), func(t *testing.T) {
			t.Parallel()
			const limit = 10_000
			b := budget.New(limit)
			for range limit {
				for tenant := range greedy {
					b.Take(fmt.Sprint(tenant), 1)
				}
			}
			share := int64(0)
			for b.Take("new", 1) {
				share++
			}
			if want := int64(limit/(greedy+1)) / 2; share < want {
				t.Errorf("beside %d greedy tenants a new one gets %d, want at least %d", greedy, share, want)
			}
			if b.Used() > limit {
				t.Errorf("%d of %d are used", b.Used(), limit)
			}
		})
	}
}

func TestTakeAndGive(t *testing.T) {
	t.Parallel()
	b := budget.New(100)
	if !b.Take("a", 50) {
		t.Error("half of an unused budget is refused")
	}
	if b.Take("a", 1) {
		t.Error("a tenant holds more than is free")
	}
	if !b.Take("b", 50) {
		t.Error("a tenant that holds nothing does not get what is free")
	}
	b.Give("a", 50)
	b.Give("b", 20)
	if got := b.Largest(5); len(got) != 1 || got[0] != (budget.Usage{Tenant: "b", Held: 30}) {
		t.Errorf("the largest are %v, want b with 30 alone", got)
	}
	if b.TakeSpare("c", 21, 50) {
		t.Error("what can be done without takes from the half that is left to others")
	}
	if !b.TakeSpare("c", 20, 50) {
		t.Error("what is spare is refused")
	}
	if b.Refused() != 2 {
		t.Errorf("%d refusals, want 2", b.Refused())
	}
}
