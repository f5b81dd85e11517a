package pebble

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the store's.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector
	early      prometheus.Counter
}

func newMetrics(s *Store, registerer prometheus.Registerer) *metrics {
	m := &metrics{registerer: registerer, early: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eventflow_store_history_dropped_early_total",
		Help: "Hours of delivered deliveries that were dropped before their retention had passed, because space was short.",
	})}
	if registerer == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "eventflow_store_" + name, Help: help}, value))
	}
	account := func(pick func(available, reserve, owed, pending int64) int64) func() float64 {
		return func() float64 { return float64(pick(s.space.figures())) }
	}
	gauge("disk_free_bytes", "Bytes that are free on the store's volume.", account(func(available, _, _, _ int64) int64 { return available }))
	gauge("disk_reserve_bytes", "Bytes that must stay free: below, events are refused.", account(func(_, reserve, _, _ int64) int64 { return reserve }))
	gauge("disk_owed_bytes", "Bytes that are set aside for finishing the pending deliveries.", account(func(_, _, owed, _ int64) int64 { return owed }))
	gauge("pending_deliveries", "Pending deliveries.", account(func(_, _, _, pending int64) int64 { return pending }))
	gauge("disk_used_bytes", "Bytes that the store's files take, without the ballast.", func() float64 {
		return s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) })
	})
	gauge("tables", "Tables of the storage engine.", func() float64 {
		return s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.Total().TablesCount) })
	})
	gauge("compaction_debt_bytes", "Bytes that the storage engine has yet to compact.", func() float64 {
		return s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.Compact.EstimatedDebt) })
	})
	gauge("full", "1 while events are refused because too little space is left.", func() float64 {
		if s.full.Load() {
			return 1
		}
		return 0
	})
	gauge("ballast_bytes", "Bytes of the ballast, which is given up when the volume is full.", func() float64 { return float64(s.ballast.held.Load()) })
	m.all = append(m.all, m.early, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "eventflow_store_background_errors_total", Help: "Times that background work of the storage engine failed.",
	}, func() float64 { return float64(s.trouble.count()) }))
	for _, c := range m.all {
		registerer.MustRegister(c)
	}
	return m
}

// engineFigure is one of the engine's, 0 once the store is closed.
func (s *Store) engineFigure(pick func(*pebble.Metrics) float64) float64 {
	if s.enter(context.Background()) != nil {
		return 0
	}
	defer s.leave()
	return pick(s.db.Metrics())
}

// droppedEarly counts an hour of history that went before its time.
func (m *metrics) droppedEarly() { m.early.Inc() }

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
