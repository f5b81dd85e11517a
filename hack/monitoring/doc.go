// Package monitoring tests config/components/monitoring with Prometheus' own rule engine: each alert fires when its thing is
// broken, and is resolved once that is mended. It is a module of its own, because nothing else needs Prometheus.
package monitoring
