package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/store/figures"
)

// newMetrics registers the store's metrics. Those of the backlog are of the shards that this process works on, so that
// their sum over all processes is that of the dispatcher, and an autoscaler may average them.
func newMetrics(s *Store, registerer prometheus.Registerer) *figures.Set {
	var own []prometheus.Collector
	gauge := func(name, help string, value func() float64) {
		own = append(own, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "eventflow_store_" + name, Help: help}, value))
	}
	gauge("connections", "Connections to the database.", func() float64 {
		return float64(s.pool.Stat().TotalConns() + s.control.Stat().TotalConns())
	})
	gauge("connections_in_use", "Connections to the database that are in use.", func() float64 {
		return float64(s.pool.Stat().AcquiredConns() + s.control.Stat().AcquiredConns())
	})
	return figures.New(registerer, figures.Source{
		Ready: s.Ready, Shards: func() int { return len(s.ownership.shards()) }, Measure: s.measure, Now: s.Now, Logger: s.options.Logger,
	}, own...)
}

const (
	countDue = `SELECT count(*) FROM (SELECT FROM eventflow.pending WHERE sub > $1 AND sub < $2 AND due <= $3 LIMIT $4) AS d`

	// oldestDue skips from one subscription to the next.
	oldestDue = `WITH RECURSIVE b AS (
(SELECT sub, due FROM eventflow.pending WHERE sub > $1 AND sub < $2 ORDER BY sub, due LIMIT 1)
UNION ALL
SELECT n.sub, n.due FROM b, LATERAL (SELECT p.sub, p.due FROM eventflow.pending AS p WHERE p.sub > b.sub AND p.sub < $2 ORDER BY p.sub, p.due LIMIT 1) AS n)
SELECT coalesce(min(due), 0) FROM b`

	// diskUsed leaves out a table that is dropped meanwhile.
	diskUsed = `SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_catalog.pg_class AS c WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'm')`
)

// measure looks at the backlog of the shards that are owned here.
func (s *Store) measure(ctx context.Context) (figures.Backlog, error) {
	now := s.now()
	found := figures.Backlog{DiskUsed: -1}
	for _, r := range ranges(s.ownership.shards()) {
		after, _ := shardBounds(r.first)
		_, below := shardBounds(r.last)
		var n, first int64
		b := &pgx.Batch{}
		b.Queue(s.sql(countDue), after, below, now, figures.MaxCounted-found.Due)
		b.Queue(s.sql(oldestDue), after, below)
		if err := s.ask(ctx, b, &n, &first); err != nil {
			return found, err
		}
		found.Due += n
		if at := time.Unix(0, first); first != 0 && (found.Oldest.IsZero() || at.Before(found.Oldest)) {
			found.Oldest = at
		}
	}
	b := &pgx.Batch{}
	b.Queue(diskUsed, s.options.Schema)
	if err := s.ask(ctx, b, &found.DiskUsed); err != nil {
		found.DiskUsed = -1
		s.options.Logger.V(1).Info("The size of the database could not be read", "reason", textOf(err))
	}
	return found, nil
}

// ask reads the one value that each statement of the batch answers with.
func (s *Store) ask(ctx context.Context, b *pgx.Batch, values ...*int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	results := s.pool.SendBatch(ctx, b)
	var err error
	for _, value := range values {
		if err == nil {
			err = results.QueryRow().Scan(value)
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	return concealed(err)
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
