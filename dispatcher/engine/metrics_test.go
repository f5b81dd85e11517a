package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// seriesOf are the values of counters and gauges, by name and, with one, the label's value.
func seriesOf(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += "/" + label.GetValue()
			}
			all[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return all
}

// TestWhatBecameOfDeliveriesIsCounted: retries, exhausted deliveries, and endpoints that fail, until they do not any more.
func TestWhatBecameOfDeliveriesIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to, registry := newMemoryStore(), newEndpoints(), prometheus.NewRegistry()
		fine, twice, broken := to.add("fine", ok), to.add("twice", failing(2)), to.add("broken", status(500))
		to.edit(broken, func(e *Endpoint) { e.Retry.MaxAttempts = 12 })
		e, stop := start(t, s, to, Options{Registerer: registry})
		defer stop()
		wants := func(what string, want map[string]float64) {
			t.Helper()
			got := seriesOf(t, registry)
			for name, value := range want {
				if got["eventflow_delivery_"+name] != value {
					t.Errorf("%s: %s is %v, want %v", what, name, got["eventflow_delivery_"+name], value)
				}
			}
		}
		wants("nothing happened", map[string]float64{"finished_total/Delivered": 0, "finished_total/Failed": 0, "finished_total/Cancelled": 0, "endpoints_failing": 0})
		e.Accept(s.append("1", fine, twice, broken))
		advance(100 * time.Hour)
		wants("one is exhausted", map[string]float64{
			"finished_total/Delivered": 2, "finished_total/Failed": 1, "finished_total/Cancelled": 0,
			"retries_total": 2 + 11, "endpoints_failing": 1,
		})
		to.edit(broken, func(e *Endpoint) { e.Pull = true })
		e.Use(to, true)
		wants("the consumer pulls instead", map[string]float64{"endpoints_failing": 0})
		to.edit(broken, func(e *Endpoint) { e.Pull = false })
		e.Use(to, true)
		to.answerWith(broken, ok)
		e.Accept(s.append("2", broken))
		advance(time.Hour)
		wants("it works again", map[string]float64{"finished_total/Delivered": 3, "finished_total/Failed": 1, "endpoints_failing": 0})
	})
}
