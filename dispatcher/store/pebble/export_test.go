package pebble

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	dto "github.com/prometheus/client_model/go"
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
