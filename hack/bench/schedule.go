package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// scheduledGroups are the tenants whose deliveries wait for a planned time.
const scheduledGroups = 50

// nextYear plans every event far ahead, by a key that is the event's number: a later run replaces what an earlier one planned.
const nextYear = `schedule: {at: "event.timestamp + duration('7200h')", key: "event.id.substring(4, 13)"}`

// runScheduled lets as many deliveries as -pending says wait for next year, replaces each of them, kills the dispatcher and
// starts it again.
func runScheduled(ctx context.Context, b *bench, m *measured) error {
	p, err := b.newProduct(ctx, scheduledGroups, func(int) []endpoint { return []endpoint{{behaviour: behaviourOK, spec: nextYear}} })
	if err != nil {
		return err
	}
	defer p.end()
	idle := b.idleCPU(p)
	m.add("CPU while nothing is planned (% of a core)", idle)
	events := max(b.pending/scheduledGroups, 100) * scheduledGroups
	for _, figure := range []string{"planned/s", "replaced by key/s"} {
		l := newLoad(plan{Run: b.nextRun(), Events: events, Groups: scheduledGroups, Fan: 1}, p.api, 4, 500)
		profiled := p.profiled(ctx, "scheduled", 10*time.Second)
		err := l.closedLoop(ctx)
		took := time.Since(l.started)
		if err := errors.Join(err, profiled()); err != nil {
			return fmt.Errorf("%w; the dispatcher's log:\n%s", err, p.logged())
		}
		m.add(figure, float64(events)/took.Seconds())
		l.report(m)
		if waiting := b.counted(ctx, p, float64(events)); waiting != float64(events) {
			return fmt.Errorf("%.0f deliveries wait after %s, want %d", waiting, figure, events)
		}
	}
	b.settle(p)
	waiting := b.idleCPU(p)
	m.add("CPU while all wait (% of a core)", waiting)
	m.add("CPU that they cost (% of a core)", waiting-idle)
	resident, peak := p.resident()
	m.add("resident (MiB)", resident)
	m.add("peak resident (MiB)", peak)
	if err := p.kill(); err != nil {
		return err
	}
	_ = p.log.Close()
	if err := p.start(ctx); err != nil {
		return err
	}
	m.add("restart until ready (s)", p.Started.Seconds())
	m.add("lost", float64(events)-b.counted(ctx, p, float64(events)))
	b.settle(p)
	m.add("CPU after the restart (% of a core)", b.idleCPU(p))
	resident, peak = p.resident()
	m.add("resident after restart (MiB)", max(resident, peak))
	return nil
}

// counted is how many deliveries wait, once that is as many as wanted or a count later: a dispatcher counts each minute.
func (b *bench) counted(ctx context.Context, p *product, want float64) (n float64) {
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); {
		if n = p.metric(ctx, "eventflow_store_pending_deliveries"); n == want || pause(ctx, time.Second) != nil {
			break
		}
	}
	return n
}

// idleCPU is what p uses of a core while nothing is published.
func (b *bench) idleCPU(p *product) float64 {
	<-time.After(10 * time.Second)
	before, start := p.cpu(), time.Now()
	<-time.After(b.idleFor)
	return float64(p.cpu()-before) / float64(time.Since(start)) * 100
}

// settle waits until compactions have ended: two seconds with hardly any CPU time, or a minute.
func (b *bench) settle(p *product) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		before := p.cpu()
		<-time.After(2 * time.Second)
		if p.cpu()-before < 40*time.Millisecond {
			return
		}
	}
}

// runBurst plans deliveries for one instant, and measures how fast they go out then, and how fast as many do that are due at
// once.
func runBurst(ctx context.Context, b *bench, m *measured) error {
	events := b.scaled(100_000)
	usual, err := b.drained(ctx, m, "", events, time.Time{})
	if err != nil {
		return err
	}
	// Planning takes less than 10 s for 100,000 on the slowest machine so far.
	due := time.Now().Add(startTimeout/8 + time.Duration(events)*100*time.Microsecond).Truncate(time.Second)
	spec := fmt.Sprintf(`schedule: {at: "timestamp('%s')", key: event.id}`, due.UTC().Format(time.RFC3339))
	burst, err := b.drained(ctx, m, spec, events, due)
	if err != nil {
		return err
	}
	m.add("rate over that of what is due at once", burst.rate/usual.rate)
	m.add("due at once: deliveries/s", usual.rate)
	m.add("due at once: CPU of publish and delivery (µs)", float64(usual.cpu)/float64(time.Microsecond))
	m.add("burst: deliveries/s", burst.rate)
	m.add("burst: CPU of delivery (µs)", float64(burst.cpu)/float64(time.Microsecond))
	m.add("burst: until the last arrived (s)", burst.took.Seconds())
	return nil
}

// drain is how fast deliveries went out, and the dispatcher's CPU time for each.
type drain struct {
	rate      float64
	took, cpu time.Duration
}

// drained publishes events to a subscription with a further line of spec, and waits until all arrived. Rate and CPU time count
// from the instant at which they are due, or from the first publish if that is zero.
func (b *bench) drained(ctx context.Context, m *measured, spec string, events int, due time.Time) (d drain, err error) {
	p, err := b.newProduct(ctx, 1, func(int) []endpoint { return []endpoint{{behaviour: behaviourOK, spec: spec}} })
	if err != nil {
		return d, err
	}
	defer p.end()
	l := newLoad(plan{Run: b.nextRun(), Events: events, Groups: 1, Fan: 1}, p.api, 4, 100)
	if err := b.receiver.begin(ctx, l.plan); err != nil {
		return d, err
	}
	spent := p.cpu()
	if err := l.closedLoop(ctx); err != nil {
		return d, fmt.Errorf("%w; the dispatcher's log:\n%s", err, p.logged())
	}
	start, profiled := due, func() error { return nil }
	if due.IsZero() {
		start = l.started
	} else {
		if err := pause(ctx, time.Until(due)); err != nil || time.Since(due) > time.Second {
			return d, errors.Join(err, fmt.Errorf("planning ended %s after they were due: the machine is too slow for this many", time.Since(due)))
		}
		spent, profiled = p.cpu(), p.profiled(ctx, "burst", 5*time.Second)
	}
	if err := b.receiver.wait(ctx, events, 0, b.patience); err != nil {
		return d, err
	}
	d.cpu = (p.cpu() - spent) / time.Duration(events)
	t, err := b.audited(ctx, l, m, everyEndpoint)
	if err := errors.Join(err, profiled()); err != nil {
		return d, err
	}
	d.took = t.Last.Sub(start)
	d.rate = float64(events) / d.took.Seconds()
	return d, nil
}
