package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// filtering is how many subscriptions look at each event of the scenario filters.
	filtering = 10_000
	// distinctFilter looks at two fields of an event; only that of subscription 0 is true.
	distinctFilter = `filter: "event.data.value.quantity > 100.0 && event.data.subject.reference == 'Patient/pt_%s'"`
)

var filterFigures = []benchmarkFigure{
	{"comparison (µs)", `BenchmarkFilter/comparison\S*\s.*?([\d.]+) ns/op`, 1e-3},
	{"allocations of a comparison", `BenchmarkFilter/comparison\S*\s.*?([\d.]+) allocs/op`, 1},
	{"realistic filter (µs)", `BenchmarkFilter/realistic\S*\s.*?([\d.]+) ns/op`, 1e-3},
	{"allocations of a realistic filter", `BenchmarkFilter/realistic\S*\s.*?([\d.]+) allocs/op`, 1},
}

// runFilters runs the benchmarks of package expression on an event of 1 KB that is parsed already. Then it publishes events that
// many filters look at.
func runFilters(ctx context.Context, b *bench, m *measured) error {
	if err := b.microbenchmarks(ctx, m, filterFigures, "dispatcher/expression", "-run=^$", "-bench=^BenchmarkFilter$"); err != nil {
		return err
	}
	p, err := b.newProduct(ctx, 1, func(int) []endpoint {
		all := make([]endpoint, filtering)
		for i := range all {
			all[i] = endpoint{behaviour: behaviourOK, spec: fmt.Sprintf(distinctFilter, strconv.Itoa(i))}
		}
		all[0].spec = fmt.Sprintf(distinctFilter, "abc123")
		return all
	})
	if err != nil {
		return err
	}
	defer p.end()
	if err := b.warmUp(ctx, p, 1, filtering, 1); err != nil {
		return err
	}
	events := b.scaled(400)
	l := newLoad(plan{Run: b.nextRun(), Events: events, Groups: 1, Fan: filtering}, p.api, 2, 1)
	if err := b.receiver.begin(ctx, l.plan); err != nil {
		return err
	}
	profiled := p.profiled(ctx, "filters", 5*time.Second)
	before := p.cpu()
	if err := l.closedLoop(ctx); err != nil {
		return fmt.Errorf("%w; the dispatcher's log:\n%s", err, p.logged())
	}
	if err := b.receiver.wait(ctx, events, 0, b.patience); err != nil {
		return err
	}
	spent := p.cpu() - before
	if _, err := b.audited(ctx, l, m, func(k int) bool { return k == 0 }); err != nil {
		return err
	}
	m.add("CPU of an event (ms)", spent.Seconds()*1000/float64(events))
	m.add("start until ready (s)", p.Started.Seconds())
	resident, _ := p.resident()
	m.add("resident (MiB)", resident)
	return profiled()
}
