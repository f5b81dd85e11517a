package payload

import (
	"context"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

const (
	// parsedBytes is what parsing holds for each byte of JSON at most: two bytes make a value.
	parsedBytes = 75
	// evaluationBytes is what one evaluation may hold beside what it reads: texts, by its cost, and its result twice.
	evaluationBytes = 16*expression.CostLimit + 2*expression.MaxOutput
	// minMemoryPause and maxMemoryPause bound the wait between two looks for memory; it doubles, so that a tenant whose attempts
	// all wait costs no processor.
	minMemoryPause, maxMemoryPause = 10 * time.Millisecond, time.Second
	// maxWaiters is how many attempts may wait for a place. There are fewer attempts than that.
	maxWaiters = 1 << 20
)

// parsed is what a parsed document holds at most.
func parsed(size int) int64 { return min(int64(size), 2*expression.MaxValues) * parsedBytes }

// account is what one attempt has charged to its tenant. A nil budget charges nothing. It is not safe for concurrent use.
type account struct {
	budget *budget.Budget
	tenant string
	held   int64
}

// hold charges n bytes within the tenant's share, and waits for them as long as ctx lasts. What is held may be held for as long
// as an endpoint hangs, so no tenant may have of it what others need.
func (a *account) hold(ctx context.Context, n int64) error {
	return a.wait(ctx, n, func() bool { return a.budget.Take(a.tenant, n) })
}

// holdOver is hold beyond the tenant's share. It is for evaluations alone: they are few at once, end soon, and others wait for
// their places.
func (a *account) holdOver(ctx context.Context, n int64) error {
	return a.wait(ctx, n, func() bool { return a.budget.Take(a.tenant, n) || a.budget.TakeOver(a.tenant, n) })
}

func (a *account) wait(ctx context.Context, n int64, take func() bool) error {
	if a.budget == nil {
		return ctx.Err()
	}
	for pause := minMemoryPause; !take(); pause = min(2*pause, maxMemoryPause) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	a.held += n
	return nil
}

// drop gives n bytes back.
func (a *account) drop(n int64) {
	if n = min(n, a.held); a.budget != nil && n > 0 {
		a.budget.Give(a.tenant, n)
		a.held -= n
	}
}

func (a *account) dropAll() { a.drop(a.held) }
