package postgres

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// heartbeat is how often a member renews its row.
	heartbeat = time.Second
	// quickHeartbeat is the same while it waits for its share of the shards, hurriedHeartbeat at the sight of one that
	// is free.
	quickHeartbeat   = 200 * time.Millisecond
	hurriedHeartbeat = 50 * time.Millisecond
	// releaseTimeout is how long the attempts of a shard that is given to another may take to finish, leaveTimeout the
	// same for an owner that stops, which ends them itself before.
	releaseTimeout = 8 * time.Second
	leaveTimeout   = time.Minute
	// stopTimeout bounds a statement that gives something back.
	stopTimeout = 5 * time.Second
)

// leaving is the revision of a member that stops: nobody has to wait for it, and it has no share of the shards.
const leaving = math.MaxInt64

// membership is the work of one Own.
type membership struct {
	store *Store
	owner delivery.Owner

	mu sync.Mutex
	// held are the leases that the owner knows of.
	held map[int]*holding
	// deadline is when the owner stops unless the lease was renewed.
	deadline *time.Timer
	releases sync.WaitGroup
	// seen are the members at the last heartbeat.
	seen map[string]sighting
	// hurry says that a shard is free.
	hurry chan struct{}
}

// holding is a lease that the owner knows of.
type holding struct {
	delivery.Lease
	releasing bool
}

// Own makes this process a member, and divides the shards with the others, until ctx ends.
func (s *Store) Own(ctx context.Context, owner delivery.Owner) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	m := &membership{store: s, owner: owner, held: map[int]*holding{}, hurry: make(chan struct{}, 1)}
	m.deadline = time.AfterFunc(time.Hour, m.loseAll)
	defer m.deadline.Stop()
	s.ownership.setTell(owner.Notice)
	defer s.ownership.setTell(nil)
	notices := make(chan struct{})
	go func() { m.collectNotices(ctx); close(notices) }()
	failing := false
	for wait := time.Duration(0); m.rest(ctx, wait); {
		enough, err := m.beat(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if !failing {
				s.options.Logger.Info("The leases could not be renewed; trying again", "reason", textOf(err))
			}
			failing, wait = true, quickHeartbeat
		case enough:
			failing, wait = false, heartbeat
		default:
			failing, wait = false, quickHeartbeat
		}
	}
	<-notices
	m.leave(context.WithoutCancel(ctx))
	return nil
}

// rest waits for d, or for less once a shard is free, or returns false once ctx ended.
func (m *membership) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.hurry:
		return pause(ctx, min(d, hurriedHeartbeat))
	case <-ctx.Done():
		return false
	}
}

// safety is how long before a lease expires its owner stops by itself.
func (s *Store) safety() time.Duration { return s.options.LeaseDuration / 4 }

const (
	renewMember = `INSERT INTO eventflow.members (id, expires, revision, settings) SELECT $1, ` + databaseNow + ` + $2, $3, $4
ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, revision = excluded.revision, settings = excluded.settings`

	selectMembers = `SELECT id, revision, settings, expires FROM eventflow.members WHERE expires > ` + databaseNow + ` ORDER BY id`

	selectLeases = `SELECT l.shard, l.epoch, coalesce(l.owner, '') = $1, l.owner IS NULL OR m.id IS NULL FROM eventflow.leases AS l
LEFT JOIN eventflow.members AS m ON m.id = l.owner AND m.expires > ` + databaseNow + ` ORDER BY l.shard`

	// takeLeases compares again what selectLeases found, for others may take them at the same time.
	takeLeases = `UPDATE eventflow.leases AS l SET owner = $1, epoch = l.epoch + 1
FROM unnest($2::integer[], $3::bigint[]) AS u (shard, epoch)
WHERE l.shard = u.shard AND l.epoch = u.epoch AND (l.owner IS NULL OR l.owner = $1
OR NOT EXISTS (SELECT FROM eventflow.members AS m WHERE m.id = l.owner AND m.expires > ` + databaseNow + `))
RETURNING l.shard, l.epoch`

	freeLeases = `UPDATE eventflow.leases AS l SET owner = NULL FROM unnest($2::integer[], $3::bigint[]) AS u (shard, epoch)
WHERE l.owner = $1 AND l.shard = u.shard AND l.epoch = u.epoch`

	// buryMember takes the lease of a member that did not renew it since it was to expire then.
	buryMember = `DELETE FROM eventflow.members WHERE id = $1 AND expires = $2`

	forgetMembers = `DELETE FROM eventflow.members WHERE expires < ` + databaseNow + ` - $1`
)

// leaseRow is a lease as the database has it.
type leaseRow struct {
	shard int
	epoch int64
	mine  bool
	free  bool // or its owner is not alive
}

// beat renews the lease, and brings what the owner works on in line with what the database says. enough reports whether
// that is its share.
func (m *membership) beat(ctx context.Context) (enough bool, err error) {
	s := m.store
	ctx, cancel := context.WithTimeout(ctx, min(2*time.Second, s.options.LeaseDuration/3))
	defer cancel()
	sent := time.Now()
	var members []member
	var leases []leaseRow
	b := &pgx.Batch{}
	revision, settings := s.ownership.says()
	b.Queue(s.sql(renewMember), s.options.Identity, s.options.LeaseDuration.Nanoseconds(), revision, settings)
	b.Queue(s.sql(selectMembers))
	b.Queue(s.sql(selectLeases), s.options.Identity)
	results := s.control.SendBatch(ctx, b)
	if _, err = results.Exec(); err == nil {
		members, err = readMembers(results)
	}
	if err == nil {
		leases, err = readLeases(results)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return false, err
	}
	m.renewed(sent)
	target := share(members, s.options.Identity)
	s.ownership.setMembers(members)
	if err := m.bury(ctx, members); err != nil {
		return false, err
	}
	return m.reconcile(ctx, leases, target)
}

// member is a dispatcher that is alive.
type member struct {
	id       string
	revision int64
	settings int64
	expires  int64
}

// sighting is since when a member's lease was seen to expire at the same time.
type sighting struct {
	expires int64
	since   time.Time
}

// bury ends the leases of members that did not renew them for as long as one lasts, although the database's clock says
// that they have not expired: it was set back. Such a member has stopped its work by itself.
func (m *membership) bury(ctx context.Context, members []member) error {
	s := m.store
	seen := make(map[string]sighting, len(members))
	for _, other := range members {
		sight, known := m.seen[other.id]
		if !known || sight.expires != other.expires {
			sight = sighting{other.expires, time.Now()}
		}
		seen[other.id] = sight
		if time.Since(sight.since) <= s.options.LeaseDuration {
			continue
		}
		s.options.Logger.Info("A dispatcher does not renew its lease, which ends in the future by the database's clock; it counts as gone", "member", other.id)
		if _, err := s.control.Exec(ctx, s.sql(buryMember), other.id, other.expires); err != nil {
			return err
		}
	}
	m.seen = seen
	return nil
}

func readMembers(results pgx.BatchResults) ([]member, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m member, err error) {
		err = row.Scan(&m.id, &m.revision, &m.settings, &m.expires)
		return m, err
	})
}

func readLeases(results pgx.BatchResults) ([]leaseRow, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l leaseRow, err error) {
		err = row.Scan(&l.shard, &l.epoch, &l.mine, &l.free)
		return l, err
	})
}

// share is how many shards the member is to work on, given all who are alive.
func share(members []member, identity string) int {
	members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.revision == leaving })
	rank := slices.IndexFunc(members, func(m member) bool { return m.id == identity })
	if rank < 0 {
		return 0
	}
	n := delivery.Shards / len(members)
	if rank < delivery.Shards%len(members) {
		n++
	}
	return n
}

// renewed puts off the time at which the owner stops by itself.
func (m *membership) renewed(sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deadline.Reset(time.Until(sent.Add(m.store.options.LeaseDuration - m.store.safety())))
}

// loseAll stops the work on every shard: the lease was not renewed in time.
func (m *membership) loseAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.held) > 0 {
		m.store.options.Logger.Info("The leases could not be renewed in time: the work on all shards stops", "shards", len(m.held))
	}
	for shard := range m.held {
		m.lose(shard)
	}
}

// lose stops the work on a shard.
func (m *membership) lose(shard int) {
	m.store.ownership.unset(shard)
	delete(m.held, shard)
	m.owner.Lose(shard)
}

// reconcile takes and gives back what is missing and what is too much.
func (m *membership) reconcile(ctx context.Context, leases []leaseRow, target int) (enough bool, err error) {
	candidates := m.compare(leases)
	m.mu.Lock()
	count := 0
	for _, h := range m.held {
		if !h.releasing {
			count++
		}
	}
	if count > target {
		m.releaseSome(count-target, releaseTimeout)
	}
	m.mu.Unlock()
	if count >= target {
		return true, m.freeStrays(ctx, candidates)
	}
	if len(candidates) == 0 {
		return false, nil
	}
	taken, err := m.take(ctx, candidates[:min(len(candidates), target-count)])
	return count+taken == target, err
}

// compare loses what the database says is another's, and returns what may be taken, in random order.
func (m *membership) compare(leases []leaseRow) (candidates []leaseRow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range leases {
		h := m.held[l.shard]
		switch {
		case h != nil && (!l.mine || h.Epoch != l.epoch):
			m.store.options.Logger.Info("A shard was taken over by another dispatcher", "shard", l.shard, "epoch", l.epoch)
			m.lose(l.shard)
		case h == nil && (l.mine || l.free):
			candidates = append(candidates, l)
		}
	}
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	return candidates
}

// freeStrays gives back, of the candidates, what the database says is this member's already, although it works on none
// of them: the answer was lost when it took them or gave them back. Nobody else would take them.
func (m *membership) freeStrays(ctx context.Context, candidates []leaseRow) error {
	var shards []int32
	var epochs []int64
	for _, l := range candidates {
		if l.mine {
			shards, epochs = append(shards, int32(l.shard)), append(epochs, l.epoch)
		}
	}
	if len(shards) == 0 {
		return nil
	}
	_, err := m.store.control.Exec(ctx, m.store.sql(freeLeases), m.store.options.Identity, shards, epochs)
	return err
}

// take takes leases, as many of them as no other took first.
func (m *membership) take(ctx context.Context, candidates []leaseRow) (taken int, err error) {
	slices.SortFunc(candidates, func(x, y leaseRow) int { return x.shard - y.shard })
	var shards []int32
	var epochs []int64
	for _, l := range candidates {
		shards, epochs = append(shards, int32(l.shard)), append(epochs, l.epoch)
	}
	sent := time.Now()
	rows, err := m.store.control.Query(ctx, m.store.sql(takeLeases), m.store.options.Identity, shards, epochs)
	if err != nil {
		return 0, err
	}
	leases, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l delivery.Lease, err error) {
		err = row.Scan(&l.Shard, &l.Epoch)
		return l, err
	})
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(sent) > m.store.options.LeaseDuration-m.store.safety() {
		return 0, nil // the process stood still: the next beat says what is true now
	}
	for _, l := range leases {
		m.held[l.Shard] = &holding{Lease: l}
		m.store.ownership.set(l.Shard, l.Epoch)
		m.owner.Take(l)
	}
	return len(leases), nil
}

// releaseSome begins to give n shards back, whose attempts may take that long to end.
func (m *membership) releaseSome(n int, timeout time.Duration) {
	for shard, h := range m.held {
		if n == 0 {
			return
		}
		if !h.releasing {
			n--
			h.releasing = true
			m.store.ownership.unset(shard)
			m.releases.Go(func() { m.release(shard, h, timeout) })
		}
	}
}

// release gives a shard back once its attempts ended. Who takes it finds all that was stored before.
func (m *membership) release(shard int, h *holding, timeout time.Duration) {
	waiting, cancel := context.WithTimeout(m.store.closing, timeout)
	defer cancel()
	m.owner.Release(waiting, shard)
	m.mu.Lock()
	current := m.held[shard] == h
	if current {
		delete(m.held, shard)
	}
	m.mu.Unlock()
	if !current {
		return // lost meanwhile
	}
	freeing, cancel := context.WithTimeout(m.store.closing, stopTimeout)
	defer cancel()
	if _, err := m.store.control.Exec(freeing, m.store.sql(freeLeases), m.store.options.Identity, []int32{int32(shard)}, []int64{h.Epoch}); err != nil {
		m.store.options.Logger.Info("A shard could not be given back; it is taken again, or expires", "shard", shard, "reason", textOf(err))
	}
}

// leave gives each shard back once its attempts ended, and then ends the membership. Until then the member is alive, so
// that nobody takes what it still works on, but has no share: the others take what it gives back.
func (m *membership) leave(ctx context.Context) {
	m.store.ownership.setLeaving(true)
	defer m.store.ownership.setLeaving(false)
	m.mu.Lock()
	m.releaseSome(len(m.held), leaveTimeout)
	m.mu.Unlock()
	released := make(chan struct{})
	go func() { m.releases.Wait(); close(released) }()
	m.linger(ctx, released)
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := m.store.transact(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, m.store.sql(`UPDATE eventflow.leases SET owner = NULL WHERE owner = $1`), m.store.options.Identity); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, m.store.sql(`DELETE FROM eventflow.members WHERE id = $1`), m.store.options.Identity)
		return err
	})
	if err != nil {
		m.store.options.Logger.Info("The leases could not be given back; they expire", "reason", textOf(err))
	}
}

// linger renews the lease until everything was given back. If it cannot, the work on what is left stops in time.
func (m *membership) linger(ctx context.Context, released <-chan struct{}) {
	for {
		wait := heartbeat
		if _, err := m.beat(ctx); err != nil {
			wait = quickHeartbeat
		}
		select {
		case <-released:
			return
		case <-time.After(wait):
		}
	}
}
