package routes

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	entries = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "eventflow_routing_table_entries",
		Help: "Subscriptions in a dispatcher's routing table.",
	}, dispatcherLabels)
	shardWrites = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventflow_routing_table_shard_writes_total",
		Help: "Shards of a dispatcher's routing table that were written.",
	}, dispatcherLabels)
	indexWrites = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventflow_routing_table_index_writes_total",
		Help: "Indexes of a dispatcher's routing table that were written.",
	}, dispatcherLabels)
	bytesWritten = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventflow_routing_table_written_bytes_total",
		Help: "Bytes of a dispatcher's routing table that were written.",
	}, dispatcherLabels)

	dispatcherLabels = []string{"dispatcher_namespace", "dispatcher"}
)

func init() { metrics.Registry.MustRegister(entries, shardWrites, indexWrites, bytesWritten) }

// ShowTable shows how many subscriptions a dispatcher's table has. Its counters are there from then on.
func ShowTable(namespace, name string, subscriptions int) {
	entries.WithLabelValues(namespace, name).Set(float64(subscriptions))
	for _, counter := range []*prometheus.CounterVec{shardWrites, indexWrites, bytesWritten} {
		counter.WithLabelValues(namespace, name)
	}
}

// forgetMetrics drops the series of a dispatcher that is gone.
func forgetMetrics(namespace, name string) {
	for _, vector := range []interface {
		DeleteLabelValues(values ...string) bool
	}{entries, shardWrites, indexWrites, bytesWritten} {
		vector.DeleteLabelValues(namespace, name)
	}
}
