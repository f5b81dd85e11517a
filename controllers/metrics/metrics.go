// Package metrics has what the manager says of itself as a whole. Each controller has its own metrics beside it.
package metrics

import (
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// version is that of the program that runs, once it is known.
var version atomic.Pointer[string]

// build is a collector, because the version is known only once a manager runs.
type build struct{ desc *prometheus.Desc }

func init() {
	metrics.Registry.MustRegister(build{prometheus.NewDesc("eventflow_build_info", "The program that runs; always 1.",
		[]string{"version"}, prometheus.Labels{"component": "manager", "goversion": runtime.Version()})})
}

// Show makes eventflow_build_info show the version of the program.
func Show(of string) { version.Store(&of) }

// Describe is of prometheus.Collector.
func (b build) Describe(descs chan<- *prometheus.Desc) { descs <- b.desc }

// Collect shows the version, if it is known.
func (b build) Collect(all chan<- prometheus.Metric) {
	if v := version.Load(); v != nil {
		all <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, 1, *v)
	}
}
