package pebble

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	dto "github.com/prometheus/client_model/go"

	"github.com/clinikapi/eventflow/api/event"
)

// CheckSpace looks at the volume now, not only once a second.
func (s *Store) CheckSpace() { s.checkSpace() }

// Syncs counts the times that the log was synced.
func Syncs(s *Store) uint64 {
	var m dto.Metric
	if err := s.db.Metrics().LogWriter.FsyncLatency.Write(&m); err != nil {
		return 0
	}
	return m.GetHistogram().GetSampleCount()
}

// FormatKey is where the format is written.
var FormatKey = formatKey

// Format is what is written in the directory.
func Format(t *testing.T, dir string) byte {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{Logger: engineLogger{&Store{options: Options{}.withDefaults()}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	value, closer, err := db.Get(formatKey)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()
	return value[len(value)-1]
}

// SetSweepKeys bounds how many needed events a sweep keeps in memory.
func SetSweepKeys(s *Store, n int) { s.sweeping.atOnce = n }

// Bodies counts how often the body of each event is stored.
func Bodies(t *testing.T, s *Store) map[event.Key]int {
	t.Helper()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[event.Key]int{}
	for it.First(); it.Valid(); it.Next() {
		if space := it.Key()[0]; space == spaceEvent || space == spaceFailedEvent && len(it.Value()) > 0 {
			_, key := parseEventKey(it.Key())
			bodies[key]++
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return bodies
}

// Pending is how many deliveries the account of the volume counts as pending.
func Pending(s *Store) int64 {
	<-s.counted
	_, _, _, n := s.space.figures()
	return n
}

// Keyed is how many of them it counts that have a key of a schedule.
func Keyed(s *Store) int64 {
	<-s.counted
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return s.space.keyed
}

// TotalsBy is Totals with steps of the given length.
func TotalsBy(ctx context.Context, s *Store, length int, yield func(sub event.SubscriptionKey, deliveries, bytes int64) error) error {
	return s.totalsBy(ctx, length, yield)
}

// Counted is closed once the deliveries that were pending when the store was opened were counted.
func Counted(s *Store) <-chan struct{} { return s.counted }

// Written is how many bytes of batches were written to the log.
func Written(s *Store) uint64 { return s.db.Metrics().WAL.BytesIn }

// FlushNow writes what is in memory to tables.
func FlushNow(s *Store) error { return s.db.Flush() }

// Measure looks at the backlog now, not only every 10 s.
func (s *Store) Measure() error { return s.metrics.common.Measure(context.Background()) }

// StartNeeds is how many bytes the next start of the store may need.
func StartNeeds(s *Store) int64 { return s.logBytes() + smallWrites }

// WhileRecording calls during while something else decides on deliveries.
func WhileRecording(s *Store, during func()) {
	s.ledger.Lock()
	defer s.ledger.Unlock()
	during()
}

// Started is how many planned deliveries are being attempted.
func Started(s *Store) int {
	s.starts.Lock()
	defer s.starts.Unlock()
	return len(s.starts.under) + len(s.starts.claimed)
}
