package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// measured is what a scenario's repetitions gave.
type measured struct {
	Name, Work string
	Figures    []*figure
	Audits     []audit
	Samples    [][]sample `json:",omitempty"`
	Error      string     `json:",omitempty"`
}

// figure is one value of each repetition.
type figure struct {
	Name     string
	Median   float64
	Min, Max float64
	Values   []float64
	Reach    string `json:",omitempty"`
	Reached  bool   `json:",omitempty"`
	isTarget bool
}

// add notes a repetition's figure.
func (m *measured) add(name string, value float64) {
	i := slices.IndexFunc(m.Figures, func(f *figure) bool { return f.Name == name })
	if i < 0 {
		i = len(m.Figures)
		m.Figures = append(m.Figures, &figure{Name: name})
	}
	f := m.Figures[i]
	f.Values = append(f.Values, value)
	f.Median, f.Min, f.Max = median(f.Values), slices.Min(f.Values), slices.Max(f.Values)
}

// judge compares the figures with what is to be reached; those come first.
func (m *measured) judge(targets []target) {
	for _, t := range slices.Backward(targets) {
		i := slices.IndexFunc(m.Figures, func(f *figure) bool { return f.Name == t.figure })
		f := &figure{Name: t.figure}
		if i >= 0 {
			f = m.Figures[i]
			m.Figures = slices.Delete(m.Figures, i, i+1)
		}
		f.isTarget = true
		sign := "≤ "
		if f.Reached = len(f.Values) > 0 && f.Median <= t.bound; t.atLeast {
			f.Reached, sign = f.Median >= t.bound, "≥ "
		}
		f.Reach = sign + format(t.bound)
		m.Figures = slices.Insert(m.Figures, 0, f)
	}
}

// median of values, which stay as they are.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 0:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	default:
		return sorted[n/2]
	}
}

// result is the whole run's.
type result struct {
	Version   string
	Machine   machine
	Receiver  string
	Started   string
	Raw       []rawResult
	Scenarios []*measured
}

func (r *result) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// writeTable writes a row for each figure, those with a bound first.
func (r *result) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d cores, %.0f MiB; Linux %s; %s; %s, fdatasync p50 %.0f µs, p99 %.0f µs\n", r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryMiB,
		r.Machine.Kernel, r.Machine.Go, r.Machine.FileSystem, r.Machine.FsyncMicroseconds.P50, r.Machine.FsyncMicroseconds.P99)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scenario\tfigure\tmedian\tlowest … highest\treach\t")
	for _, m := range r.Scenarios {
		for _, f := range m.Figures {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, f.Name, f.median(), f.spread(), f.Reach, f.verdict())
		}
		if len(m.Audits) > 0 {
			fmt.Fprintf(table, "%s\tarrived\t%s\t\t\t\n", m.Name, total(m.Audits))
		}
	}
	return table.Flush()
}

// missed names the figures that were not reached.
func (r *result) missed() (names []string) {
	for _, m := range r.Scenarios {
		for _, f := range m.Figures {
			if f.isTarget && !f.Reached {
				names = append(names, m.Name+": "+f.Name)
			}
		}
	}
	return names
}

func total(all []audit) audit {
	var sum audit
	for _, a := range all {
		sum.Acknowledged += a.Acknowledged
		sum.Expected += a.Expected
		sum.Missing += a.Missing
		sum.Duplicates += a.Duplicates
		sum.Misrouted += a.Misrouted
		sum.Unacknowledged += a.Unacknowledged
	}
	return sum
}

func (f *figure) median() string {
	if len(f.Values) == 0 {
		return "not measured"
	}
	return format(f.Median)
}

func (f *figure) spread() string {
	if len(f.Values) < 2 {
		return ""
	}
	return format(f.Min) + " … " + format(f.Max)
}

func (f *figure) verdict() string {
	switch {
	case !f.isTarget:
		return ""
	case f.Reached:
		return "reached"
	default:
		return "MISSED"
	}
}

// format writes three significant digits, and no fewer than stand before the point.
func format(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case abs >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}
