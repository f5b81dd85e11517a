package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// gaugePause is how often the backlog is looked at.
	gaugePause = 10 * time.Second
	// maxCounted bounds the cost of counting it.
	maxCounted = 100_000
)

// metrics are the store's. Those of the backlog are of the shards that this process works on, so that their sum over
// all processes is that of the dispatcher, and an autoscaler may average them.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	mu             sync.Mutex
	due, oldestAge float64
}

func newMetrics(s *Store, registerer prometheus.Registerer) *metrics {
	m := &metrics{registerer: registerer}
	if registerer == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "eventflow_store_" + name, Help: help}, value))
	}
	gauge("due_deliveries", "Pending deliveries of the shards owned here that are due, at most 100,000.", func() float64 { return m.read(&m.due) })
	gauge("oldest_due_age_seconds", "How long ago the earliest pending delivery of the shards owned here fell due; 0 if none is due.",
		func() float64 { return m.read(&m.oldestAge) })
	gauge("owned_shards", "Shards that this process works on.", func() float64 { return float64(len(s.ownership.shards())) })
	gauge("ready", "1 while the database accepts events.", func() float64 {
		if s.Ready() != nil {
			return 0
		}
		return 1
	})
	gauge("connections", "Connections to the database.", func() float64 {
		return float64(s.pool.Stat().TotalConns() + s.control.Stat().TotalConns())
	})
	gauge("connections_in_use", "Connections to the database that are in use.", func() float64 {
		return float64(s.pool.Stat().AcquiredConns() + s.control.Stat().AcquiredConns())
	})
	for _, c := range m.all {
		registerer.MustRegister(c)
	}
	return m
}

func (m *metrics) read(value *float64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *value
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

const (
	countDue = `SELECT count(*) FROM (SELECT FROM eventflow.pending WHERE sub > $1 AND sub < $2 AND due <= $3 LIMIT $4) AS d`

	// oldestDue skips from one subscription to the next.
	oldestDue = `WITH RECURSIVE b AS (
(SELECT sub, due FROM eventflow.pending WHERE sub > $1 AND sub < $2 ORDER BY sub, due LIMIT 1)
UNION ALL
SELECT n.sub, n.due FROM b, LATERAL (SELECT p.sub, p.due FROM eventflow.pending AS p WHERE p.sub > b.sub AND p.sub < $2 ORDER BY p.sub, p.due LIMIT 1) AS n)
SELECT coalesce(min(due), 0) FROM b`
)

// gauges looks at the backlog from time to time, until the store is closed.
func (s *Store) gauges() {
	for pause(s.closing, gaugePause) {
		if s.down.Load() != nil {
			continue
		}
		if err := s.measure(s.closing); err != nil && s.closing.Err() == nil {
			s.options.Logger.V(1).Info("The backlog could not be measured", "reason", textOf(err))
		}
	}
}

// measure looks at the backlog of the shards that are owned here.
func (s *Store) measure(ctx context.Context) error {
	now := s.now()
	var due, oldest int64
	for _, r := range ranges(s.ownership.shards()) {
		after, _ := shardBounds(r.first)
		_, below := shardBounds(r.last)
		var n, first int64
		b := &pgx.Batch{}
		b.Queue(s.sql(countDue), after, below, now, maxCounted-due)
		b.Queue(s.sql(oldestDue), after, below)
		ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
		results := s.pool.SendBatch(ctx, b)
		err := results.QueryRow().Scan(&n)
		if err == nil {
			err = results.QueryRow().Scan(&first)
		}
		if closed := results.Close(); err == nil {
			err = closed
		}
		cancel()
		if err != nil {
			return err
		}
		due += n
		if first != 0 && (oldest == 0 || first < oldest) {
			oldest = first
		}
	}
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	s.metrics.due, s.metrics.oldestAge = float64(due), 0
	if oldest != 0 && oldest < now {
		s.metrics.oldestAge = time.Duration(now - oldest).Seconds()
	}
	return nil
}

// shardRange is shards in a row.
type shardRange struct{ first, last int }

// ranges joins shards in a row, given in order.
func ranges(shards []int) []shardRange {
	var all []shardRange
	for _, shard := range shards {
		if n := len(all); n > 0 && all[n-1].last+1 == shard {
			all[n-1].last = shard
			continue
		}
		all = append(all, shardRange{shard, shard})
	}
	return all
}
