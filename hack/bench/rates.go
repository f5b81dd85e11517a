package main

import (
	"context"
	"errors"
	"fmt"
)

// runRates runs the scenarios of rates with this binary and with an older one, in turn, and divides. The order changes
// with each repetition, so that neither always has the warmer machine.
func runRates(ctx context.Context, b *bench, m *measured) error {
	if b.base == "" {
		return errors.New("the scenario rates needs -base=BINARY")
	}
	kinds := []struct {
		name string
		run  func(context.Context, *bench, *measured) error
	}{{"single", runSingle}, {"batch", runBatch}, {"fanout", runFanOut}}
	binaries := [2]string{b.eventflow, b.base}
	defer func() { b.eventflow = binaries[0] }()
	for _, kind := range kinds {
		b.turns++
		var reached, cpu [2]float64
		for i := range binaries {
			which := (i + b.turns) % 2
			b.eventflow = binaries[which]
			b.progress("  %s of %s", kind.name, b.eventflow)
			var one measured
			if err := kind.run(ctx, b, &one); err != nil {
				return fmt.Errorf("%s of %s: %w", kind.name, b.eventflow, err)
			}
			// The rate over the raw loop's at that moment: the machine's moods count for both.
			reached[which] = one.value("ratio to raw")
			cpu[which] = one.value("dispatcher CPU (µs a delivery)")
			m.Audits = append(m.Audits, one.Audits...)
		}
		m.add(kind.name+" over base", reached[0]/max(reached[1], 1e-9))
		m.add(kind.name+" CPU over base", cpu[0]/max(cpu[1], 1e-9)) // steadier than a rate while others use the machine
		m.add(kind.name+" ratio to raw", reached[0])
		m.add(kind.name+" ratio to raw of base", reached[1])
	}
	return nil
}

// value of a figure; 0 if it was not measured.
func (m *measured) value(name string) float64 {
	for _, f := range m.Figures {
		if f.Name == name {
			return f.Median
		}
	}
	return 0
}
