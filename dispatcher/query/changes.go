package query

import (
	"context"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// notice says that something became of a delivery, or of those of a schedule's key.
type notice struct {
	id     event.DeliveryID
	key    *store.Query
	before Before
}

// changes are the newest changes of one tenant. One goroutine reads each changed delivery from the store once for all
// watchers. A watcher has no queue: it reads here at its own pace, and starts anew if it is too slow. The feed's lock guards
// all fields.
type changes struct {
	feed       *Feed
	tenant     string
	born, used time.Time
	// floor is the revision behind which every change is in entries.
	floor   uint64
	entries []Change
	notices []notice
	noticed chan struct{} // holds one signal
	// changed is closed and replaced when there is something new; ended is set with the last close.
	changed chan struct{}
	ended   error
}

func newChanges(f *Feed, tenant string, now time.Time) *changes {
	return &changes{
		feed: f, tenant: tenant, born: now, used: now, floor: f.revision,
		noticed: make(chan struct{}, 1), changed: make(chan struct{}),
	}
}

// add takes a notice. Too many at once end the log: watchers list again. The feed's lock is held.
func (l *changes) add(n notice) {
	if len(l.notices) >= maxNotices {
		l.abandon()
		return
	}
	l.notices = append(l.notices, n)
	select {
	case l.noticed <- struct{}{}:
	default:
	}
}

// abandon ends the log, because a change was missed.
func (l *changes) abandon() {
	if l.feed.logs[l.tenant] == l {
		delete(l.feed.logs, l.tenant)
	}
	l.end(ErrExpired)
}

// end ends the log and wakes its watchers and its reader. The feed's lock is held.
func (l *changes) end(err error) {
	if l.ended != nil {
		return
	}
	l.ended, l.notices, l.entries = err, nil, nil
	close(l.changed)
	select {
	case l.noticed <- struct{}{}:
	default:
	}
}

// read reads what was noticed from the store, many at once, until the log or the feed ends.
func (l *changes) read() {
	ctx := l.feed.ctx
	for {
		select {
		case <-ctx.Done():
			l.feed.mu.Lock()
			l.abandon()
			l.feed.mu.Unlock()
			return
		case <-l.noticed:
		}
		select { // so that watchers wake seldom, however many changes there are
		case <-ctx.Done():
		case <-time.After(noticeLinger):
		}
		l.feed.mu.Lock()
		notices, ended := l.notices, l.ended
		l.notices = nil
		l.feed.mu.Unlock()
		if ended != nil {
			return
		}
		found, err := l.resolve(ctx, notices)
		l.feed.mu.Lock()
		if err != nil {
			l.abandon()
		} else {
			l.append(found)
		}
		l.feed.mu.Unlock()
	}
}

// resolve reads the deliveries as they are now, each once.
func (l *changes) resolve(ctx context.Context, notices []notice) (found []Change, err error) {
	place := map[event.DeliveryID]int{}
	take := func(r *store.Record, before Before) {
		if i, ok := place[r.ID]; ok {
			found[i].Before |= before
			return
		}
		place[r.ID] = len(found)
		r.Attempts = r.Listed(true)
		found = append(found, Change{Before: before, Record: r})
	}
	for _, n := range notices {
		if n.key == nil {
			r, err := l.feed.Store.Get(ctx, l.tenant, n.id)
			switch {
			case errors.Is(err, store.ErrNotFound): // of another tenant, or not kept any more
			case err != nil:
				return nil, err
			default:
				take(&r, n.before)
			}
			continue
		}
		if n.key.Key.IsZero() {
			continue
		}
		q := *n.key
		q.Limit, q.LastAttempt = maxOfKey, true
		records, err := l.feed.Store.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range records {
			take(&records[i], n.before)
		}
	}
	return found, nil
}

// append gives each change its revision, and wakes the watchers. The feed's lock is held.
func (l *changes) append(found []Change) {
	if l.ended != nil || len(found) == 0 {
		return
	}
	for i := range found {
		l.feed.revision++
		found[i].Revision = l.feed.revision
	}
	l.entries = append(l.entries, found...)
	if extra := len(l.entries) - maxLogEntries; extra > 0 {
		l.floor = l.entries[extra-1].Revision
		l.entries = append([]Change(nil), l.entries[extra:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Watch is a watcher's place in a tenant's changes.
type Watch struct {
	feed     *Feed
	log      *changes
	revision uint64
	closed   bool
}

// Watch begins to watch a tenant's deliveries behind a revision. ErrExpired, ErrTooManyWatchers. Close ends it.
func (f *Feed) Watch(tenant string, revision uint64) (*Watch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.log(tenant)
	switch {
	case l == nil || !f.mayWatch(tenant):
		return nil, ErrTooManyWatchers
	case revision < l.floor || revision > f.revision:
		return nil, ErrExpired
	}
	f.watching[tenant]++
	return &Watch{feed: f, log: l, revision: revision}, nil
}

// mayWatch reports whether the tenant may have one more watcher: one of its own, or one of those that tenants share.
func (f *Feed) mayWatch(tenant string) bool {
	if f.watching[tenant] < ownWatchers {
		return true
	}
	shared := 0
	for _, n := range f.watching {
		shared += max(0, n-ownWatchers)
	}
	return f.watching[tenant] < maxTenantWatchers && shared < sharedWatchers
}

// Next returns the changes behind the last one, and waits for the first. wake, which may be nil, ends the wait without a
// change. The revision is that up to which the watcher has seen all; ErrExpired says that changes were missed.
func (w *Watch) Next(ctx context.Context, wake <-chan time.Time) (found []Change, revision uint64, err error) {
	for {
		w.feed.mu.Lock()
		l := w.log
		changed, ended, floor, entries := l.changed, l.ended, l.floor, l.entries
		expired := !w.feed.now().Before(l.born.Add(logAge))
		w.feed.mu.Unlock()
		if ended != nil || expired || w.revision < floor {
			return nil, w.revision, ErrExpired
		}
		for i := range entries {
			if entries[i].Revision > w.revision {
				w.revision = entries[len(entries)-1].Revision
				return entries[i:], w.revision, nil
			}
		}
		select {
		case <-changed:
		case <-wake:
			return nil, w.revision, nil
		case <-ctx.Done():
			return nil, w.revision, ctx.Err()
		}
	}
}

// Close gives the watcher's place back.
func (w *Watch) Close() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	if w.feed.watching[w.log.tenant]--; w.feed.watching[w.log.tenant] == 0 {
		delete(w.feed.watching, w.log.tenant)
	}
}
