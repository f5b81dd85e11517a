package pebble

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Every value begins with its version, the codec of what follows, and the id of the key that encrypts it.
const (
	recordVersion = 1
	codecPlain    = 0
	codecSealed   = 1 // of an event whose body package sealed encrypted; the body names its key
	keyNone       = 0
)

// The kinds of records, as errors name them.
const (
	kindEvent        = "event"
	kindPending      = "pending delivery"
	kindHistory      = "delivery history"
	kindFinished     = "finished delivery"
	kindCounts       = "counts"
	kindIdempotency  = "idempotency"
	kindSubscription = "subscription"
	kindMeta         = "format"
	kindLatest       = "latest of a key"
)

// DamagedError is returned for a record that cannot be read.
type DamagedError struct {
	// Kind of the record.
	Kind string
	// Version of it, if it is one that this program does not know; else 0.
	Version int
}

// Error names the kind of record.
func (e *DamagedError) Error() string {
	if e.Version != 0 {
		return fmt.Sprintf("%s record of version %d: this program reads version %d", e.Kind, e.Version, recordVersion)
	}
	return "damaged " + e.Kind + " record"
}

func appendHeader(b []byte) []byte { return append(b, recordVersion, codecPlain, keyNone) }

const headerLength = 3

// decoder reads a record. Once something is missing it stays failed, and yields zeros.
type decoder struct {
	rest   []byte
	kind   string
	failed bool
	err    error
}

func newDecoder(kind string, value []byte) decoder {
	d, _ := newDecoderOf(kind, value, codecPlain)
	return d
}

// newDecoderOf is newDecoder for records of a codec up to the given one, which it returns.
func newDecoderOf(kind string, value []byte, newest byte) (d decoder, codec byte) {
	d = decoder{rest: value, kind: kind}
	header := d.bytes(headerLength)
	switch {
	case d.failed:
	case header[0] != recordVersion:
		d.fail(&DamagedError{Kind: kind, Version: int(header[0])})
	case header[1] > newest || header[2] != keyNone:
		d.fail(&DamagedError{Kind: kind})
	default:
		codec = header[1]
	}
	return d, codec
}

func (d *decoder) fail(err error) {
	if !d.failed {
		d.failed, d.err = true, err
	}
}

func (d *decoder) bytes(n uint64) []byte {
	if d.failed || n > uint64(len(d.rest)) {
		d.fail(&DamagedError{Kind: d.kind})
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.failed || n <= 0 {
		d.fail(&DamagedError{Kind: d.kind})
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if d.failed || n <= 0 {
		d.fail(&DamagedError{Kind: d.kind})
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// int is a uvarint that counts something.
func (d *decoder) int() int {
	v := d.uvarint()
	if v > math.MaxInt32 {
		d.fail(&DamagedError{Kind: d.kind})
		return 0
	}
	return int(v)
}

func (d *decoder) string() string { return string(d.bytes(d.uvarint())) }

// end returns what went wrong; that something is left over is wrong, too.
func (d *decoder) end() error {
	if len(d.rest) != 0 {
		d.fail(&DamagedError{Kind: d.kind})
	}
	return d.err
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendEvent(b []byte, e *delivery.Event) []byte {
	b = appendHeader(b)
	if e.Sealed {
		b[len(b)-headerLength+1] = codecSealed
	}
	b = appendString(b, e.Tenant)
	b = appendString(b, e.ID)
	b = appendString(b, string(e.Type))
	b = appendString(b, e.Traceparent)
	return append(b, e.Body...)
}

// eventLength is the length of what appendEvent appends.
func eventLength(e *delivery.Event) int {
	n := headerLength + len(e.Body)
	for _, part := range [...]int{len(e.Tenant), len(e.ID), len(e.Type), len(e.Traceparent)} {
		n += (bits.Len(uint(part|1))+6)/7 + part
	}
	return n
}

// decodeEvent reads an event, whose Body is part of value.
func decodeEvent(key event.Key, value []byte) (*delivery.Event, error) {
	d, codec := newDecoderOf(kindEvent, value, codecSealed)
	e := &delivery.Event{Key: key, Sealed: codec == codecSealed, Tenant: d.string(), ID: d.string(), Type: event.Type(d.string()), Traceparent: d.string()}
	e.Body, d.rest = d.rest[:len(d.rest):len(d.rest)], nil
	if e.Size() < 0 {
		d.fail(&DamagedError{Kind: kindEvent})
	}
	return e, d.end()
}

// The flags of records.
const (
	flagHistory  = 1 << iota // of a pending delivery: it has a history record
	flagReplayOf             // the delivery names another
	flagFailure              // of counts: there was a failed attempt
	flagOrder                // of a pending delivery: it is ordered
	flagPlanned              // of a delivery: a schedule gave it a time; of counts: some wait for theirs
	flagKey                  // of a delivery: a schedule gave it a key
	flagReason               // of a finished delivery: it says why it ended
)

// pending is what a pending delivery's own record says.
type pending struct {
	since            uint64
	attempts, before int
	// history tells that there is a history record.
	history bool
	order   uint64
	size    int // of the event's body
	// planned is the time that a schedule gave it, 0 without one; key is the schedule's.
	planned uint64
	key     plan.Key
}

// waiting reports whether the delivery waits for its planned time, or has not been attempted since that came.
func (p *pending) waiting() bool { return p.planned != 0 && !p.history }

// append appends the record. That of a delivery without a history leaves out what follows from its event.
func (p *pending) append(b []byte) []byte { return p.appendFields(appendHeader(b)) }

func (p *pending) appendFields(b []byte) []byte {
	var flags byte
	if p.history {
		flags |= flagHistory
	}
	if p.order != 0 {
		flags |= flagOrder
	}
	b = append(b, flags|scheduleFlags(p.planned, p.key))
	if p.history {
		b = binary.BigEndian.AppendUint64(b, p.since)
		b = binary.AppendUvarint(b, uint64(p.attempts))
		b = binary.AppendUvarint(b, uint64(p.before))
	}
	if p.order != 0 {
		b = binary.BigEndian.AppendUint64(b, p.order)
	}
	b = appendSchedule(b, p.planned, p.key)
	return binary.AppendUvarint(b, uint64(p.size))
}

// pending reads what appendFields wrote for a delivery of an event accepted at the given time.
func (d *decoder) pending(at uint64) pending {
	p := pending{since: at}
	flags := d.byte()
	if flags&^(flagHistory|flagOrder|flagPlanned|flagKey) != 0 {
		d.fail(&DamagedError{Kind: d.kind})
	}
	if flags&flagHistory != 0 {
		p.history, p.since, p.attempts, p.before = true, d.uint64(), d.int(), d.int()
	}
	if flags&flagOrder != 0 {
		p.order = d.uint64()
	}
	if p.planned, p.key = d.schedule(flags); p.waiting() {
		p.since = p.planned
	}
	p.size = d.int()
	return p
}

// decodePending reads the record of a delivery of the given event.
func decodePending(key event.Key, value []byte) (pending, error) {
	d := newDecoder(kindPending, value)
	p := d.pending(accepted(key))
	return p, d.end()
}

// isFresh reports whether a pending delivery's record says that it is due since its event was accepted: it has neither a
// history nor a planned time.
func isFresh(value []byte) bool {
	return len(value) > headerLength && value[headerLength]&(flagHistory|flagPlanned) == 0
}

// history is all of a pending delivery.
type history struct {
	pending
	due      uint64
	replayOf event.DeliveryID
	list     []delivery.Attempt
}

func (h *history) append(b []byte) []byte {
	b = appendHeader(b)
	b = appendReplayOf(b, h.replayOf)
	b = binary.BigEndian.AppendUint64(b, h.due)
	b = h.appendFields(b)
	return appendAttempts(b, h.list)
}

func decodeHistory(value []byte) (history, error) {
	d := newDecoder(kindHistory, value)
	h := history{replayOf: d.replayOf()}
	h.due = d.uint64()
	h.pending = d.pending(0)
	if !h.history {
		d.fail(&DamagedError{Kind: kindHistory})
	}
	h.list = d.attempts()
	return h, d.end()
}

// finished is a delivery that is not pending any more.
type finished struct {
	state    delivery.State
	reason   delivery.Reason
	attempts int
	replayOf event.DeliveryID
	list     []delivery.Attempt
	planned  uint64
	key      plan.Key
}

func (f *finished) append(b []byte) []byte {
	b = appendHeader(b)
	flags := scheduleFlags(f.planned, f.key)
	if f.reason != "" {
		flags |= flagReason
	}
	b = append(b, byte(f.state)|flags)
	b = appendSchedule(b, f.planned, f.key)
	if f.reason != "" {
		b = appendString(b, string(f.reason))
	}
	b = appendReplayOf(b, f.replayOf)
	b = binary.AppendUvarint(b, uint64(f.attempts))
	return appendAttempts(b, f.list)
}

func decodeFinished(value []byte) (finished, error) {
	d := newDecoder(kindFinished, value)
	const flags = flagPlanned | flagKey | flagReason
	first := d.byte()
	f := finished{state: delivery.State(first &^ flags)}
	if f.state <= delivery.Pending || f.state > delivery.Cancelled {
		d.fail(&DamagedError{Kind: kindFinished})
	}
	f.planned, f.key = d.schedule(first)
	if first&flagReason != 0 {
		f.reason = delivery.Reason(d.string())
	}
	f.replayOf, f.attempts, f.list = d.replayOf(), d.int(), d.attempts()
	return f, d.end()
}

func appendReplayOf(b []byte, id event.DeliveryID) []byte {
	if id == (event.DeliveryID{}) {
		return append(b, 0)
	}
	b = append(b, flagReplayOf)
	b = append(b, id.Event[:]...)
	return append(b, id.Subscription[:]...)
}

func (d *decoder) replayOf() (id event.DeliveryID) {
	switch d.byte() {
	case 0:
	case flagReplayOf:
		copy(id.Event[:], d.bytes(uint64(len(id.Event))))
		copy(id.Subscription[:], d.bytes(uint64(len(id.Subscription))))
	default:
		d.fail(&DamagedError{Kind: d.kind})
	}
	return id
}

func appendAttempts(b []byte, list []delivery.Attempt) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	var before int64
	for i := range list {
		b = appendAttempt(b, &list[i], before)
		before = list[i].Started.UnixNano()
	}
	return b
}

// appendAttempt writes when the attempt started as the time since before, in Unix nanoseconds.
func appendAttempt(b []byte, a *delivery.Attempt, before int64) []byte {
	b = binary.AppendUvarint(b, uint64(a.Number))
	b = binary.AppendVarint(b, a.Started.UnixNano()-before)
	b = binary.AppendVarint(b, int64(a.Duration))
	b = binary.AppendUvarint(b, uint64(a.StatusCode))
	return appendString(b, string(a.Reason))
}

func (d *decoder) attempts() []delivery.Attempt {
	n := d.int()
	if n > store.MaxAttempts {
		d.fail(&DamagedError{Kind: d.kind})
	}
	if n == 0 || d.failed {
		return nil
	}
	list := make([]delivery.Attempt, n)
	var before int64
	for i := range list {
		list[i] = d.attempt(before)
		before = list[i].Started.UnixNano()
	}
	return list
}

func (d *decoder) attempt(before int64) delivery.Attempt {
	return delivery.Attempt{
		Number:     d.int(),
		Started:    time.Unix(0, before+d.varint()),
		Duration:   time.Duration(d.varint()),
		StatusCode: d.int(),
		Reason:     delivery.Reason(d.string()),
	}
}

// acceptance is what is remembered of an accepted event.
type acceptance struct {
	digest   [16]byte
	accepted uint64
	count    int
}

func (a *acceptance) append(b []byte) []byte {
	b = appendHeader(b)
	b = append(b, a.digest[:]...)
	b = binary.BigEndian.AppendUint64(b, a.accepted)
	return binary.AppendUvarint(b, uint64(a.count))
}

func decodeAcceptance(value []byte) (acceptance, error) {
	d := newDecoder(kindIdempotency, value)
	var a acceptance
	copy(a.digest[:], d.bytes(uint64(len(a.digest))))
	a.accepted, a.count = d.uint64(), d.int()
	return a, d.end()
}

func encodeName(name string) []byte { return appendString(appendHeader(nil), name) }

func decodeName(value []byte) (string, error) {
	d := newDecoder(kindSubscription, value)
	return d.string(), d.end()
}
