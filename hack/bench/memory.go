package main

import (
	"context"
	"errors"
	"time"
)

// runFanOutMemory asks for more memory than there is: many deliveries of small events, and large events that nobody takes.
func runFanOutMemory(ctx context.Context, b *bench, m *measured) error {
	fan := b.share(2000, 1000)
	err := b.fillMemory(ctx, m, "small: ", repeated(fan, subscription{behaviour: behaviourOK}), flood{
		publishers: 16, batch: 200, size: bodySize, events: b.share(100_000, 3200), length: b.spell(3*time.Minute, 10*time.Second), drain: b.spell(3*time.Minute, 5*time.Second),
	})
	if err != nil {
		return err
	}
	// Arrays of 8 MB: 500 events of 16 KB. 2 GiB in all, so that the disk is not what is tested.
	fan = b.share(1000, 50)
	return b.fillMemory(ctx, m, "large: ", repeated(fan, subscription{behaviour: behaviourHang}), flood{
		publishers: 32, batch: 500, size: 16_000, events: b.share(128_000, 24_000), length: b.spell(5*time.Minute, 10*time.Second),
	})
}

// flood is what publishers send to one tenant.
type flood struct {
	publishers, batch, size, events int
	length                          time.Duration // at most
	drain                           time.Duration // how long deliveries may go on before the audit
}

func (b *bench) fillMemory(ctx context.Context, m *measured, prefix string, subscriptions []subscription, f flood) error {
	s, err := b.newStage(ctx, props{tenants: crowd(1, func(int) []subscription { return subscriptions })})
	if err != nil {
		return err
	}
	defer s.end()
	l := s.newLoad(0, 1, len(subscriptions), f.events, f.publishers, f.batch)
	l.data = dataOf(f.size)
	if err := s.trap.begin(ctx, l); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, f.length)
	defer cancel()
	started := time.Now()
	ended := make(chan struct{})
	go func() { // publishers of a dispatcher that was killed have nothing to wait for
		defer close(ended)
		for pause(limited, 200*time.Millisecond) == nil {
			if s.gone() {
				cancel()
			}
		}
	}()
	err = l.closedLoop(limited)
	published := time.Since(started)
	cancel()
	<-ended
	if err != nil && (ctx.Err() != nil || !isEnd(err)) {
		return err
	}
	acknowledged := l.acknowledged()
	m.add(prefix+"acknowledged/s", float64(acknowledged)/published.Seconds())
	m.add(prefix+"publishes refused for a while", float64(l.refused.Load()-l.broken.Load()))
	if f.drain > 0 && !s.gone() {
		if err := s.trap.wait(ctx, l.Run, acknowledged*l.Fan, f.drain); err != nil {
			return err
		}
	}
	s.limit.report(m, prefix)
	if err := s.alive(); err != nil {
		return err
	}
	if s.gone() { // audit what survived
		if err := s.again(ctx); err != nil {
			return err
		}
	}
	audited, stop := context.WithTimeout(ctx, max(f.length, 2*b.patience))
	defer stop()
	lost, crossed, pending, err := s.lost(audited, l, "Pending")
	if err != nil {
		return err
	}
	m.add(prefix+"neither delivered nor pending", float64(lost+crossed))
	m.add(prefix+"pending at the end, of those audited", float64(pending))
	return nil
}

// isEnd reports whether err is nothing but the end of a context.
func isEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
