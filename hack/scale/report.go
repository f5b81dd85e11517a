package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// result is a run's.
type result struct {
	Subscriptions, Namespaces, Cores int
	Rows                             []*row
	Error                            string `json:",omitempty"`
}

// row is what one measurement gave.
type row struct {
	Name    string
	Seconds float64
	Figures []figure
	// Usage of each process while it lasted.
	Usage map[string]*usage
	// Requests that were answered meanwhile, by user, verb and resource.
	Requests tally

	began time.Time
	seen  func(request) // nil, or what else is to be known of requests
}

// figure is one value, with its goal if it has one.
type figure struct {
	Name   string
	Value  float64
	AtMost *float64 `json:",omitempty"`
}

func (f figure) reached() bool { return f.AtMost == nil || f.Value <= *f.AtMost }

func (r *row) add(name string, value float64) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value})
}

func (r *row) goal(name string, value, atMost float64) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, AtMost: &atMost})
}

// writes counts those of manager and dispatcher.
func (r *row) writes() (n int) {
	for key, count := range r.Requests {
		fields := strings.Fields(key)
		if fields[0] != userAuthor && (request{Verb: fields[1], Resource: fields[2]}).write() {
			n += count
		}
	}
	return n
}

// of counts a user's requests.
func (r *row) of(user string) (n int) {
	for key, count := range r.Requests {
		if strings.HasPrefix(key, user+" ") {
			n += count
		}
	}
	return n
}

// missed names the goals that were not reached.
func (r *result) missed() (missed []string) {
	for _, row := range r.Rows {
		for _, f := range row.Figures {
			if !f.reached() {
				missed = append(missed, fmt.Sprintf("%s: %s is %s, at most %s", row.Name, f.Name, number(f.Value), number(*f.AtMost)))
			}
		}
	}
	return missed
}

func (r *result) show(out io.Writer) {
	fmt.Fprintf(out, "%d subscriptions in %d namespaces, %d cores\n\n", r.Subscriptions, r.Namespaces, r.Cores)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "row\tfigure\tvalue\tgoal\t")
	for _, row := range r.Rows {
		for _, f := range row.Figures {
			goal, verdict := "", ""
			if f.AtMost != nil {
				goal, verdict = "≤ "+number(*f.AtMost), "ok"
			}
			if !f.reached() {
				verdict = "MISSED"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", row.Name, f.Name, number(f.Value), goal, verdict)
		}
	}
	fmt.Fprintln(table, "\t\t\t\t\nrow\tprocess\tCPU s\tRSS MiB (peak)\t")
	for _, row := range r.Rows {
		for _, name := range []string{"apiserver", "etcd", userManager, userDispatcher} {
			if u := row.Usage[name]; u != nil {
				fmt.Fprintf(table, "%s\t%s\t%.2f\t%.0f (%.0f)\t\n", row.Name, name, u.CPUSeconds, u.ResidentMiB, u.ResidentPeakMiB)
			}
		}
	}
	_ = table.Flush()
	for _, row := range r.Rows {
		if len(row.Requests) > 0 {
			fmt.Fprintf(out, "\nrequests during %s (%.1f s):\n  %s\n", row.Name, row.Seconds, strings.Join(row.Requests.lines(), "\n  "))
		}
	}
	if r.Error != "" {
		fmt.Fprintln(out, "\nerror:", r.Error)
	}
}

func number(v float64) string {
	if v == float64(int64(v)) {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
