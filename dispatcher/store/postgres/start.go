package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// starters is how many statements of Start are under way at once.
	starters = 2
	// maxStarts is how many calls share one.
	maxStarts = 256
)

// startCall is a Start that waits.
type startCall struct {
	ctx     context.Context
	id      event.DeliveryID
	epoch   int64
	done    chan struct{}
	started bool
	err     error
}

// Start marks a planned delivery as attempted, if it is pending and this process has the lease of its shard. It shares a
// statement with the Starts that come at the same time. The row lock puts it in one order with Append.
func (s *Store) Start(ctx context.Context, d delivery.PendingDelivery) (bool, error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.leave()
	epoch, owned := s.ownership.epoch(delivery.ShardOf(d.ID.Subscription))
	if !owned {
		return false, nil // its next owner starts it
	}
	c := &startCall{ctx: ctx, id: d.ID, epoch: epoch, done: make(chan struct{})}
	select {
	case s.starts <- c:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case <-c.done:
		return c.started, c.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// startCalls answers calls of Start, as many at once as are waiting, until the store is closed.
func (s *Store) startCalls() {
	for {
		var batch []*startCall
		select {
		case c := <-s.starts:
			batch = append(batch, c)
		case <-s.closing.Done():
			return
		}
		for more := true; more && len(batch) < maxStarts; {
			select {
			case c := <-s.starts:
				batch = append(batch, c)
			default:
				more = false
			}
		}
		s.answerStarts(batch)
	}
}

// startPlanned does not wait for the disk: what a crash of the server undoes counts as not attempted.
const startPlanned = `WITH fence AS (SELECT shard, epoch FROM eventflow.leases WHERE owner = $1 AND shard = ANY($2::integer[]) FOR SHARE)
UPDATE eventflow.pending AS p SET started = true
FROM unnest($2::integer[], $3::bigint[], $4::bytea[], $5::bytea[]) AS u (shard, epoch, sub, event), fence AS f
WHERE f.shard = u.shard AND f.epoch = u.epoch AND p.sub = u.sub AND p.event = u.event AND p.planned IS NOT NULL
RETURNING p.sub, p.event`

func (s *Store) answerStarts(batch []*startCall) {
	batch = slices.DeleteFunc(batch, func(c *startCall) bool {
		if c.ctx.Err() != nil {
			c.err = c.ctx.Err()
			close(c.done)
			return true
		}
		return false
	})
	if len(batch) == 0 {
		return
	}
	var t taking
	for _, c := range batch {
		t.add(&delivery.Outcome{Delivery: delivery.PendingDelivery{ID: c.id}, Epoch: c.epoch}, 0)
	}
	t.sort()
	started, err := s.startAll(&t)
	if err != nil {
		err = fmt.Errorf("start deliveries: %w", explain(s.closing, err))
	}
	for _, c := range batch {
		_, c.started = started[c.id]
		c.err = err
		close(c.done)
	}
}

// startAll runs the statement, and again where that may help: it does no harm twice.
func (s *Store) startAll(t *taking) (map[event.DeliveryID]struct{}, error) {
	for try := 1; ; try++ {
		started, err := s.startOnce(t)
		again := isContention(err) || isLost(err) && !errors.Is(err, context.DeadlineExceeded)
		if err == nil {
			return started, nil
		}
		if !again || try == recordTries || s.closing.Err() != nil {
			return nil, err
		}
	}
}

func (s *Store) startOnce(t *taking) (map[event.DeliveryID]struct{}, error) {
	conn, err := s.acquire(s.closing, s.pool)
	if err != nil {
		return nil, err
	}
	defer conn.release()
	started := make(map[event.DeliveryID]struct{}, len(t.subs))
	b := &pgx.Batch{}
	s.begin(b, settingsLazy)
	b.Queue(s.sql(startPlanned), s.options.Identity, t.shards, t.epochs, t.subs, t.events)
	b.Queue("commit")
	err = conn.send(b, afterBegin(func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		var sub, key []byte
		_, err = pgx.ForEachRow(rows, []any{&sub, &key}, func() error {
			var id event.DeliveryID
			var errs [2]error
			id.Subscription, errs[0] = decodeSubscription(sub)
			id.Event, errs[1] = decodeKey(key)
			started[id] = struct{}{}
			return errors.Join(errs[:]...)
		})
		return err
	}, nil)...)
	return started, err
}
