// Package figures has the metrics that every store shows: one name, one type and one meaning, whatever keeps the events.
// A rule or a dashboard that names them need not know the store. What one store alone has, it registers itself.
package figures

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// Pause is how often the backlog is measured.
	Pause = 10 * time.Second
	// MaxCounted bounds what a count of due deliveries reads.
	MaxCounted = 100_000
	// costShare is how many times longer than a measurement the pause after it is at least.
	costShare = 20
)

// Backlog is what is due, of the shards that the process works on. Sums over all processes are those of the dispatcher.
type Backlog struct {
	// Due are the pending deliveries that are due, at most MaxCounted.
	Due int64
	// Oldest is when the earliest pending delivery falls due; zero if nothing is pending.
	Oldest time.Time
	// DiskUsed are the bytes that the store takes, of all processes that share it; negative if that could not be found out.
	DiskUsed int64
}

// Source is a store that is looked at. All fields but Pause are set.
type Source struct {
	// Ready returns nil while the store accepts events, else an error of package store.
	Ready func() error
	// Shards is how many shards the process works on.
	Shards func() int
	// Measure looks at the backlog. There is one call at a time.
	Measure func(ctx context.Context) (Backlog, error)
	// Now is the store's clock.
	Now func() time.Time
	// Pause is how often the backlog is measured; the constant of that name if 0.
	Pause  time.Duration
	Logger logr.Logger
}

// Set are the metrics of one store.
type Set struct {
	source     Source
	registerer prometheus.Registerer
	all        []prometheus.Collector

	// measuring is held by the measurement under way, so that an older one never replaces a newer one.
	measuring sync.Mutex

	mu  sync.Mutex
	due float64
	age float64
	// disk is what the store takes, as measured last.
	disk float64
}

// New registers the metrics, and those of the store's own, with registerer. Without one there are none.
func New(registerer prometheus.Registerer, source Source, own ...prometheus.Collector) *Set {
	s := &Set{source: source, registerer: registerer}
	if registerer == nil {
		return s
	}
	gauge := func(name, help string, value func() float64) {
		s.all = append(s.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("eventflow_store_ready", "1 while the store accepts events.", func() float64 { return number(source.Ready() == nil) })
	gauge("eventflow_store_full", "1 while events are refused because too little space is left.",
		func() float64 { return number(errors.Is(source.Ready(), store.ErrFull)) })
	gauge("eventflow_store_owned_shards", "Shards that this process works on.", func() float64 { return float64(source.Shards()) })
	gauge("eventflow_store_due_deliveries", "Pending deliveries of the shards owned here that are due, at most 100,000.",
		func() float64 { return s.read(&s.due) })
	gauge("eventflow_store_oldest_due_age_seconds", "How long ago the earliest pending delivery of the shards owned here fell due; 0 if none is due.",
		func() float64 { return s.read(&s.age) })
	gauge("eventflow_store_disk_used_bytes", "Bytes that the store takes on its disk. Processes that share a store say the same.",
		func() float64 { return s.read(&s.disk) })
	s.all = append(s.all, own...)
	for _, c := range s.all {
		registerer.MustRegister(c)
	}
	return s
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (s *Set) read(value *float64) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *value
}

// Run measures the backlog now and again until ctx ends. Without a registerer it returns at once.
func (s *Set) Run(ctx context.Context) {
	if s.registerer == nil {
		return
	}
	for {
		began := time.Now()
		if err := s.Measure(ctx); err != nil && ctx.Err() == nil {
			s.source.Logger.V(1).Info("The backlog could not be measured", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(cmp.Or(s.source.Pause, Pause), costShare*time.Since(began))):
		}
	}
}

// Measure looks at the backlog once. A store that takes no events is not asked: what was seen last stays.
func (s *Set) Measure(ctx context.Context) error {
	if err := s.source.Ready(); err != nil && !errors.Is(err, store.ErrFull) {
		return nil //nolint:nilerr // eventflow_store_ready says so
	}
	s.measuring.Lock()
	defer s.measuring.Unlock()
	b, err := s.source.Measure(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due, s.age = float64(b.Due), 0
	if !b.Oldest.IsZero() {
		s.age = max(s.source.Now().Sub(b.Oldest).Seconds(), 0)
	}
	if b.DiskUsed >= 0 {
		s.disk = float64(b.DiskUsed)
	}
	return nil
}

// Unregister takes the metrics back. Call it once the store is closed.
func (s *Set) Unregister() {
	for _, c := range s.all {
		s.registerer.Unregister(c)
	}
}
