package places_test

import (
	"context"
	"errors"
	"fmt"
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
				if err := p.Acquire(t.Context(), source, 1); err != nil {
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
		p.Release("flood", 1)
		synctest.Wait()
		if name := <-got; name != "fourth" {
			t.Errorf("the place of the flood went to %s, want the source that holds none", name)
		}
		for _, name := range []string{"flood", "other", "third", "fourth"} {
			p.Release(name, 1)
		}
		for p.Taken() > 0 {
			p.Release("flood", 1)
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
		if err := p.Acquire(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 3)
		for range 2 {
			go func() { results <- p.Acquire(ctx, "a", 1) }()
		}
		synctest.Wait()
		if err := p.Acquire(ctx, "a", 1); !errors.Is(err, places.ErrFull) {
			t.Errorf("a third waiter of one source: got %v", err)
		}
		go func() { results <- p.Acquire(ctx, "b", 1) }()
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
		p.Release("a", 1)
		if p.Waiting() != 0 || p.Taken() != 0 {
			t.Errorf("%d wait and %d are taken after all left", p.Waiting(), p.Taken())
		}
		if err := p.Acquire(ctx, "a", 1); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: got %v", err)
		}
	})
}

// asking asks a pool for places and tells the order in which sources got them.
type asking struct {
	t    *testing.T
	pool *places.Pool
	got  chan string
}

func newAsking(t *testing.T, pool *places.Pool) asking {
	return asking{t, pool, make(chan string, 100)}
}

func (a asking) ask(source string, n int) {
	go func() {
		if err := a.pool.Acquire(context.Background(), source, n); err != nil {
			a.t.Error(err)
		}
		a.got <- source
	}()
	synctest.Wait()
}

// next releases the places of the source that was served last, and returns who is served then; nobody if that is empty.
func (a asking) next(last string, n int) (source string) {
	a.pool.Release(last, n)
	synctest.Wait()
	select {
	case source = <-a.got:
	default:
	}
	return source
}

// TestWhoAsksForLittleGoesFirst: while many sources ask again as soon as they were served, one that asks once in a round
// gets the next place each time, and the others get theirs in turn.
func TestWhoAsksForLittleGoesFirst(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"as much at once": 1, "less at once": 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const crowd, rounds = 10, 8
				a := newAsking(t, places.New(want, 1000))
				for i := range crowd {
					a.ask(fmt.Sprint("busy-", i), want)
				}
				served, last := map[string]int{}, <-a.got
				for i := range crowd * rounds {
					a.ask(last, want)                    // again, before the place is given back
					if i > crowd && i%crowd == crowd/2 { // all were newcomers in the first round
						a.ask("seldom", 1)
						if next := a.next(last, want); next != "seldom" {
							t.Fatalf("after %d turns, %q was served before the source that asks for little", i, next)
						}
						last = a.next("seldom", 1)
					} else {
						last = a.next(last, want)
					}
					served[last]++
				}
				for source, n := range served {
					if n < rounds-1 || n > rounds+1 {
						t.Errorf("%s was served %d times in %d rounds", source, n, rounds)
					}
				}
				a.drain(last, want)
			})
		})
	}
}

// drain lets all that wait have their turn.
func (a asking) drain(last string, n int) {
	for last != "" {
		last = a.next(last, n)
	}
	if a.pool.Waiting() != 0 || a.pool.Taken() != 0 {
		a.t.Errorf("%d wait and %d are taken after all were served", a.pool.Waiting(), a.pool.Taken())
	}
}

// TestMuchAtOnceIsNotStarved: what becomes free is kept for a source that wants more than that, however many want less.
func TestMuchAtOnceIsNotStarved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t, places.New(4, 100))
		a.ask("first", 1)
		a.ask("second", 1)
		a.ask("large", 4)
		a.ask("small", 1)
		<-a.got
		<-a.got
		if next := a.next("first", 1); next != "" {
			t.Errorf("%s was served before the one that waited for all places", next)
		}
		if next := a.next("second", 1); next != "large" {
			t.Errorf("%q was served when all places were free", next)
		}
		if next := a.next("large", 4); next != "small" {
			t.Errorf("%q was served last", next)
		}
		a.drain("small", 1)
		if n := places.Sources(a.pool); n != 0 {
			t.Errorf("%d sources are remembered though nobody waits", n)
		}
	})
}

// TestManySourcesAreForgotten: sources that come once, while others wait all the time, do not add up.
func TestManySourcesAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t, places.New(1, 100))
		a.ask("0", 1)
		last := <-a.got
		for i := range 1000 {
			a.ask(fmt.Sprint(i+1), 1)
			a.ask(fmt.Sprint("more-", i%50), 1)
			last = a.next(last, 1)
			if i >= 40 {
				last = a.next(last, 1)
			}
			if n := places.Sources(a.pool); n > 200 {
				t.Fatalf("%d sources are remembered after %d turns", n, i)
			}
		}
		a.drain(last, 1)
	})
}
