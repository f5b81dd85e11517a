package postgres

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// save stores what was decided.
func (p *planning) save(w *writing, parts *parts) error {
	if err := p.saveEvents(w, parts); err != nil {
		return err
	}
	p.queueEnded(parts.batch)
	if err := p.queueMade(parts); err != nil {
		return err
	}
	p.queueKeys(parts.batch)
	rows := &pendingRows{quiet: w.quiet}
	for sub, due := range p.earliest() {
		rows.notify(p.store, sub, due)
	}
	rows.queueNotices(p.store, parts.batch)
	return parts.flush()
}

// saveEvents stores the events once for each day that a delivery is planned for, and once for those that ended at once.
func (p *planning) saveEvents(w *writing, parts *parts) error {
	refs := map[period]map[*entry]int32{}
	add := func(at period, e *entry) {
		if refs[at] == nil {
			refs[at] = map[*entry]int32{}
		}
		refs[at][e]++
	}
	for _, d := range p.made {
		add(plannedPeriod(d.Planned), d.entry)
	}
	for _, d := range p.ended {
		if d.entry != nil {
			add(period{kindFailedEvents, kindFailedEvents.bucket(p.filed)}, d.entry)
		}
	}
	for _, at := range sortedPeriods(refs) {
		var entries []*entry
		for e := range refs[at] {
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(x, y *entry) int { return bytes.Compare(x.key[:], y.key[:]) })
		if err := w.saveEntries(parts, at, entries, refs[at]); err != nil {
			return err
		}
	}
	return nil
}

func sortedPeriods[T any](of map[period]T) []period {
	all := make([]period, 0, len(of))
	for at := range of {
		all = append(all, at)
	}
	slices.SortFunc(all, func(x, y period) int {
		return cmp.Or(cmp.Compare(x.kind.name, y.kind.name), cmp.Compare(x.bucket, y.bucket))
	})
	return all
}

// queueEnded files the deliveries that ended, with copies of the events of those that were pending.
func (p *planning) queueEnded(b *pgx.Batch) {
	s := p.store
	var subs, events [][]byte
	var dues []int64
	var rows finishedRows
	var details detailRows
	var copies plannedKeys
	var counts changes
	for _, d := range p.ended {
		one := counts.of(d.ID.Subscription)
		if d.state == delivery.Failed {
			one.failed++
		} else {
			one.cancelled++
		}
		if d.entry == nil {
			subs, events, dues = append(subs, d.ID.Subscription[:]), append(events, d.ID.Event[:]), append(dues, nanos(d.Due))
			copies.add(s, d.standing)
			if d.Attempts > 0 {
				one.retrying--
			}
		}
		rows.add(d.standing)
		details.add(d.standing, d.started)
	}
	if len(p.ended) == 0 {
		return
	}
	if len(subs) > 0 {
		b.Queue(s.sql(endPlanned), subs, dues, events)
	}
	copies.queue(s, b, period{kindFailedEvents, kindFailedEvents.bucket(p.filed)})
	failed := period{kindFailed, kindFailed.bucket(p.filed)}
	b.Queue(s.sql(insertFailed, failed.table()), rows.tenants, rows.events, rows.subs, rows.attempts, rows.logs, rows.replays, rows.states)
	details.queue(s, b, period{kindDetails, kindDetails.bucket(p.filed)})
	counts.queue(s, b)
}

// queueMade stores the new deliveries as pending.
func (p *planning) queueMade(parts *parts) error {
	for part := range slices.Chunk(p.made, partRows) {
		all := make([]*standing, len(part))
		for i, d := range part {
			all[i] = d.standing
		}
		queuePlanned(p.store, parts.batch, all, false)
		if err := parts.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) queueKeys(b *pgx.Batch) {
	var subs, keys, newest [][]byte
	var stamps, kept []int64
	for _, of := range p.sorted() {
		k := p.keys[of]
		if !k.changed {
			continue
		}
		until := p.filed
		for _, d := range k.pending {
			until = max(until, nanos(d.Planned))
		}
		subs, keys = append(subs, of.sub[:]), append(keys, of.key[:])
		stamps, kept = append(stamps, k.stamp), append(kept, until)
		var latest []byte
		if k.newest != (event.Key{}) {
			latest = k.newest[:]
		}
		newest = append(newest, latest)
	}
	if len(subs) > 0 {
		b.Queue(p.store.sql(saveKeys), subs, keys, stamps, kept, newest)
	}
}

// earliest is when the first of each subscription's new deliveries is due.
func (p *planning) earliest() map[event.SubscriptionKey]int64 {
	all := map[event.SubscriptionKey]int64{}
	for _, d := range p.made {
		if due, ok := all[d.ID.Subscription]; !ok || nanos(d.Due) < due {
			all[d.ID.Subscription] = nanos(d.Due)
		}
	}
	return all
}

// subscriptions calls yield for each that something is stored for.
func (p *planning) subscriptions(yield func(*delivery.Subscription)) {
	for _, d := range p.made {
		yield(d.sub)
	}
	for _, d := range p.ended {
		yield(d.sub)
	}
}
