package pebble

import (
	"context"
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store/figures"
)

// metrics are the store's.
type metrics struct {
	common *figures.Set
	early  prometheus.Counter
}

func newMetrics(s *Store, registerer prometheus.Registerer) *metrics {
	m := &metrics{early: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eventflow_store_history_dropped_early_total",
		Help: "Hours of delivered deliveries that were dropped before their retention had passed, because space was short.",
	})}
	own := []prometheus.Collector{m.early, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "eventflow_store_background_errors_total", Help: "Times that background work of the storage engine failed.",
	}, func() float64 { return float64(s.trouble.count()) })}
	gauge := func(name, help string, value func() float64) {
		own = append(own, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "eventflow_store_" + name, Help: help}, value))
	}
	account := func(pick func(available, reserve, owed, pending int64) int64) func() float64 {
		return func() float64 { return float64(pick(s.space.figures())) }
	}
	gauge("disk_free_bytes", "Bytes that are free on the store's volume.", account(func(available, _, _, _ int64) int64 { return available }))
	gauge("disk_reserve_bytes", "Bytes that must stay free: below, events are refused.", account(func(_, reserve, _, _ int64) int64 { return reserve }))
	gauge("disk_owed_bytes", "Bytes that are set aside for finishing the pending deliveries.", account(func(_, _, owed, _ int64) int64 { return owed }))
	gauge("tables", "Tables of the storage engine.", func() float64 {
		return s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.Total().TablesCount) })
	})
	gauge("compaction_debt_bytes", "Bytes that the storage engine has yet to compact.", func() float64 {
		return s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.Compact.EstimatedDebt) })
	})
	gauge("ballast_bytes", "Bytes of the ballast, which is given up when the volume is full.", func() float64 { return float64(s.ballast.held.Load()) })
	m.common = figures.New(registerer, figures.Source{
		Ready: s.Ready, Shards: s.shards, Measure: s.backlog, Now: s.Now, Pause: s.options.MeasurePause, Logger: s.options.Logger,
	}, own...)
	return m
}

// shards is how many shards an owner works on: all, or none yet.
func (s *Store) shards() int {
	s.owner.RLock()
	defer s.owner.RUnlock()
	if s.owner.is == nil {
		return 0
	}
	return delivery.Shards
}

// engineFigure is one of the engine's, 0 once the store is closed.
func (s *Store) engineFigure(pick func(*pebble.Metrics) float64) float64 {
	if s.enter(context.Background()) != nil {
		return 0
	}
	defer s.leave()
	return pick(s.db.Metrics())
}

// backlog counts what is due, and skips from there to the next subscription. It holds one iterator for a shard at most.
func (s *Store) backlog(ctx context.Context) (figures.Backlog, error) {
	b := figures.Backlog{DiskUsed: int64(s.engineFigure(func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) }))}
	if err := s.enter(ctx); err != nil {
		return b, err
	}
	defer s.leave()
	oldest := uint64(math.MaxUint64)
	for shard := range delivery.Shards {
		if err := s.backlogOf(ctx, shard, &b, &oldest); err != nil {
			return b, err
		}
	}
	if oldest != math.MaxUint64 {
		b.Oldest = moment(oldest)
	}
	return b, nil
}

// backlogOf adds a shard's backlog.
func (s *Store) backlogOf(ctx context.Context, shard int, b *figures.Backlog, oldest *uint64) error {
	it, err := s.iterate(shardBounds(shard))
	if err != nil {
		return err
	}
	now := s.now()
	for ok := it.First(); ok && err == nil; {
		if len(it.Key()) != pendingKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		sub, due, _ := parsePendingKey(it.Key())
		*oldest = min(*oldest, due)
		if due <= now && b.Due < figures.MaxCounted {
			b.Due++
			ok = it.Next()
		} else {
			ok = it.SeekGE(appendPendingKey(nil, sub, math.MaxUint64, event.Key{}))
		}
		err = errors.Join(ctx.Err(), s.closing.Err())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// droppedEarly counts an hour of history that went before its time.
func (m *metrics) droppedEarly() { m.early.Inc() }

func (m *metrics) unregister() { m.common.Unregister() }
