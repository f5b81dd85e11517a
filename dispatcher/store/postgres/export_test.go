package postgres

import (
	"context"
	"time"
)

// Owned are the shards that the store's owner works on.
func Owned(s *Store) []int { return s.ownership.shards() }

// TakeForTest takes a shard's lease, whoever has it, and does not keep it alive.
func (s *Store) TakeForTest(ctx context.Context, shard int) (epoch int64, err error) {
	err = s.pool.QueryRow(ctx, s.sql(`UPDATE eventflow.leases SET owner = $1, epoch = epoch + 1 WHERE shard = $2 RETURNING epoch`),
		s.options.Identity, shard).Scan(&epoch)
	return epoch, err
}

// MoveClock moves the store's estimate of the database's clock.
func (s *Store) MoveClock(by time.Duration) {
	s.clock.Lock()
	defer s.clock.Unlock()
	s.clock.start += int64(by)
}

// Ping finds out now, not only once a second, whether the database accepts writes.
func (s *Store) Ping() { _ = s.ping() }

// Measure looks at the backlog now, not only every 10 s.
func (s *Store) Measure() error { return s.metrics.Measure(context.Background()) }
