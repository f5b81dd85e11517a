package ingest

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	defaultMaxInFlightBytes = 128 << 20
	// minMemory lets one tenant alone publish a request of any size.
	minMemory = 8 * maxRequestBytes
	// accountStep is what an account takes at least. What a small publish needs in all fits into one.
	accountStep = 8 << 10

	// incomingBytes is what parsing holds for each event beside its text, while its list grows.
	incomingBytes = 3 * int64(unsafe.Sizeof(incoming{}))
	// leastEventText is no longer than the text of any event in an array.
	leastEventText = 32
	// eventBytes is what a publish holds of each event beside its body.
	eventBytes = 1 << 10
	// matchBytes is what it holds of each subscription that a type matched.
	matchBytes = int64(unsafe.Sizeof((*delivery.Subscription)(nil)))
)

// maxRequestDeliveries bounds what a request's events cause: stores hold and commit it as one.
const maxRequestDeliveries = 500_000

// holdings are what publishes hold, all together, and the budget that they take it from.
type holdings struct {
	budget   *budget.Budget
	inFlight atomic.Int64 // of the budget, what publishes took
	refusals atomic.Uint64
}

func newHoldings(shared *budget.Budget, private int64) *holdings {
	if shared == nil {
		if private == 0 {
			private = defaultMaxInFlightBytes
		}
		shared = budget.New(max(private, minMemory))
	}
	return &holdings{budget: shared}
}

// account is what one request holds of its tenant's memory. Everything is charged before it is made.
type account struct {
	memory *holdings
	tenant string
	// taken is what the budget gave, used what of it is held: small changes do not go to the budget.
	taken, used int64
}

// hold charges n bytes more, or fails with the problem to answer.
func (a *account) hold(n int64) error {
	missing := a.used + n - a.taken
	if missing <= 0 {
		a.used += n
		return nil
	}
	missing = (missing + accountStep - 1) / accountStep * accountStep
	if a.taken+missing > a.memory.budget.Limit()/2 { // a tenant never gets more: to try again is in vain
		return newProblem(tooLarge, "the request needs more memory than one namespace may hold, %d bytes; send fewer events in one request", a.memory.budget.Limit()/2)
	}
	if !a.memory.budget.Take(a.tenant, missing) {
		return a.refusal(missing)
	}
	a.memory.inFlight.Add(missing)
	a.taken += missing
	a.used += n
	return nil
}

// refusal says why the budget gave nothing, and when to come again. A tenant that holds its share waits longer than one
// that meets a budget which others hold; its publishers do not all come back at once.
func (a *account) refusal(missing int64) error {
	const full, share, spread = 1, 3, 5
	b := a.memory.budget
	if b.Held(a.tenant) == a.taken || b.Limit()-b.Used() < missing { // nothing but this request, or nothing is left
		return newProblem(overloaded, "more is being published at once than this dispatcher holds in memory; send the request again after the time in Retry-After").
			retry(full * time.Second)
	}
	after := share + a.memory.refusals.Add(1)%spread
	return newProblem(overloaded, "the namespace publishes more at once than is its share of this dispatcher's memory; send the request again after the time in Retry-After").
		retry(time.Duration(after) * time.Second)
}

// drop uncharges n bytes that are not held any more.
func (a *account) drop(n int64) {
	a.used -= n
	if spare := a.taken - a.used; spare > 16*accountStep {
		a.give(spare - accountStep)
	}
}

// close uncharges all.
func (a *account) close() {
	if a.taken > 0 {
		a.give(a.taken)
	}
	a.used = 0
}

func (a *account) give(n int64) {
	a.memory.budget.Give(a.tenant, n)
	a.memory.inFlight.Add(-n)
	a.taken -= n
}

// parseBytes is what parsing a body holds beside it: of CloudEvents, decoded copies of data.
func parseBytes(body []byte, isArray, isCloudEvent bool) int64 {
	events := int64(1)
	if isArray {
		events += min(int64(len(body))/leastEventText, maxRequestEvents)
	}
	n := events * incomingBytes
	if isCloudEvent {
		n += 2 * int64(len(body))
	}
	return n
}

// storeBytes is what Append holds of events beside them.
func storeBytes(events int, t *totals) int64 {
	return int64(events)*store.EventBytes + int64(t.bodies)*store.BodyCopies +
		int64(t.deliveries)*store.DeliveryBytes + int64(t.ordered)*(store.OrderedDeliveryBytes-store.DeliveryBytes) +
		int64(t.plans)*store.PlanBytes
}
