package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// sample is what a dispatcher held at a moment.
type sample struct {
	Seconds, Goroutines, Sockets, Resident, CPU float64
}

// sampled takes samples until the channel is closed.
func (p *product) sampled(ctx context.Context, every time.Duration, end <-chan struct{}) []sample {
	var all []sample
	start := time.Now()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for cpu := p.cpu(); ; {
		select {
		case <-end:
			return all
		case <-ticker.C:
		}
		resident, _ := p.resident()
		now := p.cpu()
		all = append(all, sample{
			Seconds: time.Since(start).Seconds(), Goroutines: p.metric(ctx, "go_goroutines"), Sockets: float64(p.sockets()),
			Resident: resident, CPU: float64(now-cpu) / float64(every) * 100,
		})
		cpu = now
	}
}

// runDead: 500 tenants with two endpoints each, one of which is dead: half of these refuse connections, half accept
// and never answer.
func runDead(ctx context.Context, b *bench, m *measured) error {
	const groups, perSecond = 500, 1000
	p, err := b.newProduct(ctx, groups, func(group int) []endpoint {
		if group%2 == 0 {
			return []endpoint{{behaviour: behaviourOK}, {behaviour: behaviourHang}}
		}
		return []endpoint{{behaviour: behaviourOK}, {behaviour: behaviourOK, closed: true}}
	})
	if err != nil {
		return err
	}
	defer p.end()
	end, samples := make(chan struct{}), make(chan []sample)
	go func() { samples <- p.sampled(ctx, 5*time.Second, end) }()
	profiled := p.profiled(ctx, "dead", 30*time.Second)
	t, u, err := b.steady(ctx, p, m, groups, 2, perSecond, b.deadFor, func(k int) bool { return k%2 == 0 })
	close(end)
	all := <-samples
	if err := errors.Join(err, profiled()); err != nil {
		return err
	}
	m.Samples = append(m.Samples, all)
	m.add("healthy p50 (ms)", t.Latency.P50)
	m.add("healthy p99 (ms)", t.Latency.P99)
	m.add("dispatcher CPU (µs a healthy delivery)", u.Dispatcher)
	m.add("growth of goroutines after 1 min", growth(all, func(s sample) float64 { return s.Goroutines }))
	m.add("growth of sockets after 1 min", growth(all, func(s sample) float64 { return s.Sockets }))
	last := all[len(all)-1]
	m.add("goroutines at the end", last.Goroutines)
	m.add("sockets at the end", last.Sockets)
	m.add("resident at the end (MiB)", last.Resident)
	return nil
}

// growth is by how much the median of the last third of what follows the first minute lies above that of its first
// third; a tenth counts as noise.
func growth(all []sample, figure func(sample) float64) float64 {
	var values []float64
	for _, s := range all {
		if s.Seconds > 60 {
			values = append(values, figure(s))
		}
	}
	third := len(values) / 3
	if third == 0 {
		return 0
	}
	first, last := median(values[:third]), median(values[len(values)-third:])
	if last <= first*1.1 {
		return 0
	}
	return last - first
}

// The groups of runPending beside those that refuse: an endpoint that answers, and one that does once it is healed.
const (
	pendingGroups  = 52
	pendingOK      = 0
	pendingHealing = 1
)

// runPending lets 50 endpoints refuse a million events, kills the dispatcher, and looks how soon it works again: an event
// published now arrives, and what was pending for an endpoint that works again does.
func runPending(ctx context.Context, b *bench, m *measured) error {
	p, err := b.newProduct(ctx, pendingGroups, func(group int) []endpoint {
		switch group {
		case pendingOK:
			return []endpoint{{behaviour: behaviourOK}}
		case pendingHealing:
			return []endpoint{{behaviour: behaviourSwitch, retry: "initialDelay: 1s, maxDelay: 2s"}}
		default:
			return []endpoint{{behaviour: behaviourFail, retry: "initialDelay: 2h, maxDelay: 2h"}}
		}
	})
	if err != nil {
		return err
	}
	defer p.end()
	perGroup := max(b.pending/(pendingGroups-2), 100)
	l := newLoad(plan{Run: b.nextRun(), Events: perGroup * pendingGroups, Groups: pendingGroups, Fan: 1}, p.api, 4, 500)
	if err := b.receiver.begin(ctx, l.plan); err != nil {
		return err
	}
	start := time.Now()
	if err := l.closedLoop(ctx); err != nil {
		return fmt.Errorf("%w; the dispatcher's log:\n%s", err, p.logged())
	}
	m.add("published/s", float64(l.Events)/time.Since(start).Seconds())
	profiled := p.profiled(ctx, "pending", 30*time.Second)
	if err := b.receiver.wait(ctx, perGroup, perGroup*(pendingGroups-1), b.pendingFor); err != nil {
		return err
	}
	t, err := b.receiver.tally(ctx)
	if err := errors.Join(err, profiled()); err != nil {
		return err
	}
	m.add("deliveries refused once", float64(t.Failed))
	m.add("minutes until all were", time.Since(start).Minutes())
	resident, peak := p.resident()
	m.add("resident (MiB)", resident)
	m.add("peak resident (MiB)", peak)
	l.report(m)
	return b.restart(ctx, p, m, l)
}

// restart kills p and measures its way back.
func (b *bench) restart(ctx context.Context, p *product, m *measured, before *load) error {
	if err := p.kill(); err != nil {
		return err
	}
	_ = p.log.Close()
	if err := b.receiver.heal(ctx); err != nil {
		return err
	}
	seen, err := b.receiver.tally(ctx)
	if err != nil {
		return err
	}
	started := time.Now()
	if err := p.start(ctx); err != nil {
		return err
	}
	m.add("restart until ready (s)", p.Started.Seconds())
	if err := b.receiver.wait(ctx, seen.Arrived+1, 0, b.patience); err != nil {
		return err
	}
	m.add("restart until the first retry arrived (s)", time.Since(started).Seconds())
	l := newLoad(plan{Run: b.nextRun(), Events: pendingGroups, Groups: pendingGroups, Fan: 1}, p.api, 1, 1)
	old, err := b.receiver.arrivals(ctx)
	if err != nil {
		return err
	}
	if err := b.receiver.begin(ctx, l.plan); err != nil {
		return err
	}
	if err := l.closedLoop(ctx); err != nil {
		return err
	}
	if err := b.receiver.wait(ctx, 1, 0, b.patience); err != nil {
		return err
	}
	m.add("restart until ready and delivering (s)", time.Since(started).Seconds())
	a := before.check(old, func(e int) bool { return e == pendingOK })
	m.Audits = append(m.Audits, a)
	b.progress("  healthy endpoint: %s", a)
	if a.Missing > 0 {
		return fmt.Errorf("events were lost: %s", a)
	}
	<-time.After(20 * time.Second)
	resident, peak := p.resident()
	m.add("resident after restart (MiB)", max(resident, peak))
	return nil
}

// runIdle starts a dispatcher with 1,000 subscriptions and leaves it alone.
func runIdle(ctx context.Context, b *bench, m *measured) error {
	p, err := b.newProduct(ctx, 50, healthy(20))
	if err != nil {
		return err
	}
	defer p.end()
	<-time.After(10 * time.Second)
	before, start := p.cpu(), time.Now()
	<-time.After(b.idleFor)
	resident, peak := p.resident()
	m.add("CPU (% of a core)", float64(p.cpu()-before)/float64(time.Since(start))*100)
	m.add("resident (MiB)", resident)
	m.add("peak resident (MiB)", peak)
	m.add("start until ready (s)", p.Started.Seconds())
	m.add("goroutines", p.metric(ctx, "go_goroutines"))
	return nil
}

// benchmarkFigure is one that a package's benchmarks print.
type benchmarkFigure struct {
	name, pattern string
	scale         float64
}

const modulePath = "github.com/clinikapi/eventflow/"

var tableFigures = []benchmarkFigure{
	{"match (µs)", `BenchmarkMatch\S*\s.*?([\d.]+) ns/op`, 1e-3},
	{"allocations of a match", `BenchmarkMatch\S*\s.*?([\d.]+) allocs/op`, 1},
	{"load (s)", `BenchmarkLoad\S*\s.*?([\d.]+) ns/op`, 1e-9},
	{"resident each (bytes)", `(\d+) bytes each beyond its own strings`, 1},
}

// runTable runs the routing package's benchmarks, from the module's folder: no delivery is needed to measure a table.
func runTable(ctx context.Context, b *bench, m *measured) error {
	return b.microbenchmarks(ctx, m, tableFigures, "dispatcher/routing", "-run=^TestTableMemory$", "-v", "-bench=^Benchmark(Match|Load)")
}

// microbenchmarks adds figures of a package's benchmarks and tests.
func (b *bench) microbenchmarks(ctx context.Context, m *measured, figures []benchmarkFigure, folder string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-benchmem", "-count=1"}, append(arguments, modulePath+folder)...)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w: %s", folder, err, text)
	}
	b.progress("%s", text)
	for _, figure := range figures {
		found := regexp.MustCompile(figure.pattern).FindSubmatch(text)
		if found == nil {
			continue
		}
		value, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return err
		}
		m.add(figure.name, value*figure.scale)
	}
	return nil
}
