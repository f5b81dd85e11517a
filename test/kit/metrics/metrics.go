// Package metrics helps tests to hold docs/metrics.md to the registries that it was made from.
package metrics

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/clinikapi/eventflow/test/kit/states"
)

// Document is the list of metrics, from the root of the repository.
const Document = "docs/metrics.md"

// Family is one metric as the document has it.
type Family struct{ Name, Type, Labels, Help string }

// Source is a registry that can say which metrics it has, also those without a series.
type Source interface {
	prometheus.Gatherer
	Describe(descs chan<- *prometheus.Desc)
}

// Of returns what a registry has with one of the prefixes, by name. A metric without a series fails the test: its type could
// not be told, and nobody could take its rate from the start.
func Of(t *testing.T, registry Source, prefixes ...string) []Family {
	t.Helper()
	wanted := func(name string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	}
	found := Gathered(t, registry)
	maps.DeleteFunc(found, func(name string, _ Family) bool { return !wanted(name) })
	for _, name := range described(registry) {
		if _, there := found[name]; wanted(name) && !there {
			t.Errorf("%s has no series before it is needed: make one for each value of its labels that is known", name)
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
}

// Gathered returns the metrics that have a series, by name.
func Gathered(t *testing.T, registry prometheus.Gatherer) map[string]Family {
	t.Helper()
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]Family{}
	for _, family := range gathered {
		found[family.GetName()] = of(family)
	}
	return found
}

func of(family *dto.MetricFamily) Family {
	labels := map[string]bool{}
	for _, metric := range family.GetMetric() {
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = true
		}
	}
	return Family{
		Name: family.GetName(), Type: strings.ToLower(family.GetType().String()),
		Labels: strings.Join(slices.Sorted(maps.Keys(labels)), ", "), Help: family.GetHelp(),
	}
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// described are the names of all metrics that were registered.
func described(registry Source) (names []string) {
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	for desc := range descs {
		if match := fqName.FindStringSubmatch(desc.String()); match != nil {
			names = append(names, match[1])
		}
	}
	return names
}

// Documented holds a part of the document to the metrics. With update it writes the part.
func Documented(t *testing.T, document, part string, families []Family, update bool) {
	t.Helper()
	rows := make([][]string, len(families))
	for i, f := range families {
		rows[i] = []string{"`" + f.Name + "`", f.Type, f.Labels, f.Help}
	}
	states.Documented(t, document, part, states.Table([]string{"metric", "type", "labels", "means"}, rows), update)
}

var row = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([\\w, ]*) \\| (.*) \\|$")

// Read returns what the text of the document lists, by name.
func Read(text string) map[string]Family {
	all := map[string]Family{}
	for _, match := range row.FindAllStringSubmatch(text, -1) {
		all[match[1]] = Family{match[1], match[2], match[3], match[4]}
	}
	return all
}
