// Package progress shows what make run does: a line for each step, and for how long the user has been waiting.
package progress

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// tick is how often a step that takes long says so.
const tick = 15 * time.Second

// Screen is what the user looks at. It is safe for concurrent use.
type Screen struct {
	Out io.Writer

	mu sync.Mutex
}

// Say shows a line.
func (s *Screen) Say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.Out, format+"\n", args...)
}

// Step does a part, and says how long it takes while it does.
func (s *Screen) Step(ctx context.Context, name string, do func(context.Context) error) error {
	started := time.Now()
	s.Say("• %s", name)
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticks := time.NewTicker(tick)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
				s.Say("  … for %.0f s now", time.Since(started).Seconds())
			}
		}
	})
	err := do(ctx)
	close(done)
	ticking.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
