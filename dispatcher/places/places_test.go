package places_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/clinikapi/eventflow/dispatcher/places"
)

// TestAFloodWaitsBehindItself: a source that asks for more than there is delays another by no more than a turn.
func TestAFloodWaitsBehindItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := places.New(4, 100)
		got := make(chan string, 100)
		ask := func(source string) {
			go func() {
				if err := p.Acquire(t.Context(), source); err != nil {
					got <- source + ": " + err.Error()
					return
				}
				got <- source
			}()
			synctest.Wait()
		}
		for range 20 {
			ask("flood")
		}
		if p.Taken() != 2 || p.Waiting() != 18 {
			t.Fatalf("the flood holds %d places and %d wait, want half of the places and the rest", p.Taken(), p.Waiting())
		}
		<-got
		<-got
		ask("other")
		if name := <-got; name != "other" {
			t.Fatalf("%s got the place that is left to others", name)
		}
		ask("third") // one is free still
		<-got
		ask("fourth") // none is
		p.Release("flood")
		synctest.Wait()
		if name := <-got; name != "fourth" {
			t.Errorf("the place of the flood went to %s, want the source that holds none", name)
		}
		for _, name := range []string{"flood", "other", "third", "fourth"} {
			p.Release(name)
		}
		for p.Taken() > 0 {
			p.Release("flood")
			synctest.Wait()
		}
		if p.Waiting() != 0 {
			t.Errorf("%d still wait", p.Waiting())
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := places.New(1, 4)
		if err := p.Acquire(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 3)
		for range 2 {
			go func() { results <- p.Acquire(ctx, "a") }()
		}
		synctest.Wait()
		if err := p.Acquire(ctx, "a"); !errors.Is(err, places.ErrFull) {
			t.Errorf("a third waiter of one source: got %v", err)
		}
		go func() { results <- p.Acquire(ctx, "b") }()
		synctest.Wait()
		if p.Waiting() != 3 {
			t.Errorf("%d wait, want 3", p.Waiting())
		}
		cancel()
		for range 3 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("a waiter that left got %v", err)
			}
		}
		p.Release("a")
		if p.Waiting() != 0 || p.Taken() != 0 {
			t.Errorf("%d wait and %d are taken after all left", p.Waiting(), p.Taken())
		}
		if err := p.Acquire(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: got %v", err)
		}
	})
}
