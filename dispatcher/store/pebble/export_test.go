package pebble

import dto "github.com/prometheus/client_model/go"

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
