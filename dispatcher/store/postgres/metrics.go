package postgres

import "github.com/prometheus/client_golang/prometheus"

// metrics are the store's.
type metrics struct{}

func newMetrics(*Store, prometheus.Registerer) *metrics { return &metrics{} }

func (*metrics) unregister() {}
