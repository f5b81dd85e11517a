package pebble

import (
	"encoding/binary"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// scheduleFlags say what appendSchedule writes.
func scheduleFlags(planned uint64, key plan.Key) (flags byte) {
	if planned != 0 {
		flags |= flagPlanned
	}
	if !key.IsZero() {
		flags |= flagKey
	}
	return flags
}

func appendSchedule(b []byte, planned uint64, key plan.Key) []byte {
	if planned != 0 {
		b = binary.BigEndian.AppendUint64(b, planned)
	}
	if !key.IsZero() {
		b = append(b, key[:]...)
	}
	return b
}

func (d *decoder) schedule(flags byte) (planned uint64, key plan.Key) {
	if flags&flagPlanned != 0 {
		planned = d.uint64()
	}
	if flags&flagKey != 0 {
		copy(key[:], d.bytes(uint64(len(key))))
	}
	return planned, key
}

// latest is what is kept of a schedule's key of a subscription; see plan.Latest.
type latest struct {
	timestamp time.Time
	// event of the latest delivery; zero if none was planned for the key.
	event event.Key
	// ended is when the key was last cancelled, or its latest delivery ended as it was planned, in Unix nanoseconds; 0 if
	// the delivery says whether it has ended. A store before 2026-12 wrote here when any delivery ended.
	ended uint64
}

func (k *latest) append(b []byte) []byte {
	b = appendHeader(b)
	b = binary.AppendVarint(b, k.timestamp.Unix()) // any year that a producer may name
	b = binary.AppendUvarint(b, uint64(k.timestamp.Nanosecond()))
	b = append(b, k.event[:]...)
	return binary.BigEndian.AppendUint64(b, k.ended)
}

func decodeLatest(value []byte) (latest, error) {
	d := newDecoder(kindLatest, value)
	var k latest
	k.timestamp = time.Unix(d.varint(), int64(d.int()))
	copy(k.event[:], d.bytes(uint64(len(k.event))))
	k.ended = d.uint64()
	return k, d.end()
}

// tally is what is kept of a subscription's deliveries.
type tally struct {
	delivery.Counts
	// scheduled are those that wait for their planned time, or were not attempted since it came.
	scheduled int64
}

func appendCounts(b []byte, c *tally) []byte {
	b = appendHeader(b)
	for _, n := range []int64{c.Delivered, c.Retrying, c.Failed, c.Cancelled, int64(c.FailuresInARow), c.Gone} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.BigEndian.AppendUint64(b, nanos(c.LastDelivered))
	var flags byte
	if c.LastFailure != (delivery.Attempt{}) {
		flags |= flagFailure
	}
	if c.scheduled != 0 {
		flags |= flagPlanned
	}
	b = append(b, flags)
	if flags&flagFailure != 0 {
		b = appendAttempt(b, &c.LastFailure, 0)
	}
	if flags&flagPlanned != 0 {
		b = binary.AppendVarint(b, c.scheduled)
	}
	return b
}

func decodeCounts(value []byte) (tally, error) {
	d := newDecoder(kindCounts, value)
	c := tally{Counts: delivery.Counts{
		Delivered: d.varint(), Retrying: d.varint(), Failed: d.varint(), Cancelled: d.varint(),
		FailuresInARow: int(d.varint()), Gone: d.varint(),
	}}
	if ns := d.uint64(); ns != 0 {
		c.LastDelivered = moment(ns)
	}
	flags := d.byte()
	if flags&flagFailure != 0 {
		c.LastFailure = d.attempt(0)
	}
	if flags&flagPlanned != 0 {
		c.scheduled = d.varint()
	}
	return c, d.end()
}
