package postgres

import (
	"context"
	"errors"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// TestLargeCallsAreAlone: a call that takes seconds shares no transaction, and leaves a committer to the others.
func TestLargeCallsAreAlone(t *testing.T) {
	t.Parallel()
	callOf := func(id byte, deliveries int) *call {
		event := store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{}}}
		return &call{events: []store.NewEvent{event}, ids: []identity{{id}}, deliveries: deliveries}
	}
	small, other, large := callOf(1, maxBatchDeliveries), callOf(2, 1), callOf(3, maxBatchDeliveries+1)
	for name, tc := range map[string]struct {
		calls []*call
		want  int // calls in the first batch
	}{
		"small ones share":      {[]*call{small, other}, 2},
		"large after small":     {[]*call{small, large}, 1},
		"small after large":     {[]*call{large, small, other}, 1},
		"several large":         {[]*call{large, callOf(4, maxBatchDeliveries+1)}, 1},
		"small behind a wait":   {[]*call{small, large, other}, 2},
		"the same id waits too": {[]*call{small, callOf(1, 1)}, 1},
	} {
		b := &batcher{ids: map[identity]struct{}{}}
		for _, c := range tc.calls {
			b.add(c)
		}
		if len(b.calls) != tc.want || len(b.calls)+len(b.later) != len(tc.calls) {
			t.Errorf("%s: %d calls in the batch and %d later, want %d in it", name, len(b.calls), len(b.later), tc.want)
		}
	}
	s := &Store{large: make(chan struct{}, committers-1)}
	s.options.Timeout = 1
	for range committers - 1 {
		s.large <- struct{}{}
	}
	if err := s.awaitLarge(t.Context()); !errors.Is(err, errBusy) {
		t.Errorf("a large call beside another: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.options.Timeout = 1 << 40
	if err := s.awaitLarge(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a large call of a client that left: %v", err)
	}
}
