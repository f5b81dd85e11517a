package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Settle records outcomes without a lease, and waits until they are durable.
func (s *Store) Settle(ctx context.Context, outcomes []delivery.Outcome) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	taken, err := s.recordAll(ctx, outcomes, true)
	if err != nil {
		return nil, err
	}
	settled := make([]bool, len(outcomes))
	for i := range outcomes {
		_, settled[i] = taken[outcomes[i].Delivery.ID]
	}
	return settled, nil
}

// takePulled takes deliveries out of pending where they are expected, whoever has the lease of their shard: the row is in one
// order with all that changes it.
const takePulled = `DELETE FROM eventflow.pending AS p USING unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS u (sub, event, due)
WHERE p.sub = u.sub AND p.event = u.event AND p.due = u.due` + takenColumns

// takePulled begins the transaction of a Settle, and takes the deliveries out of pending.
func (r *recording) takePulled(conn *connection) error {
	s := r.store
	r.standings = make(map[event.DeliveryID]*standing, len(r.outcomes))
	var t taking
	for i := range r.outcomes {
		t.add(&r.outcomes[i], nanos(r.outcomes[i].Delivery.Due))
	}
	t.sort()
	b := &pgx.Batch{}
	s.begin(b, settingsDurable)
	b.Queue(settingsIndexed)
	b.Queue(s.sql(takePulled), t.subs, t.events, t.dues)
	return conn.send(b, afterBegin(nil, r.read)...)
}
