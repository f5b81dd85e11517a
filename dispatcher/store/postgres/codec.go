package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Bodies and lists of attempts begin with their version, the codec of what follows, and the id of the key that
// encrypts it.
const (
	recordVersion = 1
	codecPlain    = 0
	codecSealed   = 1 // of a body that package sealed encrypted; the body names its key
	keyNone       = 0
	headerLength  = 3
)

var errDamaged = fmt.Errorf("%w: a damaged record", errUsage)

func appendHeader(b []byte) []byte { return append(b, recordVersion, codecPlain, keyNone) }

// cutHeader returns what follows the header.
func cutHeader(b []byte) ([]byte, error) {
	if len(b) < headerLength {
		return nil, errDamaged
	}
	if b[0] != recordVersion || b[1] != codecPlain || b[2] != keyNone {
		return nil, fmt.Errorf("%w: a record of version %d, codec %d, key %d", errUsage, b[0], b[1], b[2])
	}
	return b[headerLength:], nil
}

// encodeBody is an event's body as it is stored.
func encodeBody(e *delivery.Event) []byte {
	b := appendHeader(make([]byte, 0, headerLength+len(e.Body)))
	if e.Sealed {
		b[1] = codecSealed
	}
	return append(b, e.Body...)
}

// decodeBody sets the event's body to what encodeBody wrote of it.
func decodeBody(e *delivery.Event, b []byte) (err error) {
	if len(b) > headerLength && b[0] == recordVersion && b[1] == codecSealed && b[2] == keyNone {
		if e.Body, e.Sealed = b[headerLength:], true; e.Size() < 0 {
			return errDamaged
		}
		return nil
	}
	e.Body, err = cutHeader(b)
	return err
}

// encodeAttempts is a list of attempts as it is stored.
func encodeAttempts(list []delivery.Attempt) []byte {
	b := appendHeader(make([]byte, 0, headerLength+24*len(list)))
	for i := range list {
		a := &list[i]
		b = binary.AppendUvarint(b, uint64(a.Number))
		b = binary.AppendVarint(b, a.Started.UnixNano())
		b = binary.AppendVarint(b, int64(a.Duration))
		b = binary.AppendUvarint(b, uint64(a.StatusCode))
		b = binary.AppendUvarint(b, uint64(len(a.Reason)))
		b = append(b, a.Reason...)
	}
	return b
}

// decodeAttempts reads what encodeAttempts wrote.
func decodeAttempts(b []byte) ([]delivery.Attempt, error) {
	if b == nil {
		return nil, nil
	}
	rest, err := cutHeader(b)
	if err != nil {
		return nil, err
	}
	d := decoder{rest: rest}
	var list []delivery.Attempt
	for len(d.rest) > 0 && !d.failed {
		if len(list) == store.MaxAttempts {
			return nil, errDamaged
		}
		list = append(list, delivery.Attempt{
			Number: d.int(), Started: time.Unix(0, d.varint()), Duration: time.Duration(d.varint()), StatusCode: d.int(),
			Reason: delivery.Reason(d.text()),
		})
	}
	if d.failed {
		return nil, errDamaged
	}
	return list, nil
}

// decoder reads numbers. Once something is missing it stays failed, and yields zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.rest, d.failed = nil, true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.rest, d.failed = nil, true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int() int {
	v := d.uvarint()
	if v > math.MaxInt32 {
		d.rest, d.failed = nil, true
		return 0
	}
	return int(v)
}

func (d *decoder) text() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.rest, d.failed = nil, true
		return ""
	}
	text := string(d.rest[:n])
	d.rest = d.rest[n:]
	return text
}

// appendNewest adds an attempt to the newest that are kept.
func appendNewest(list []delivery.Attempt, a delivery.Attempt) []delivery.Attempt {
	kept := list[max(0, len(list)-store.MaxAttempts+1):]
	return append(kept[:len(kept):len(kept)], a)
}

// encodeID is a delivery's id as it is stored; nil for none.
func encodeID(id event.DeliveryID) []byte {
	if id == (event.DeliveryID{}) {
		return nil
	}
	return append(id.Event[:len(id.Event):len(id.Event)], id.Subscription[:]...)
}

var errKey = errors.New("a key of the wrong length")

func decodeID(b []byte) (id event.DeliveryID, err error) {
	if b == nil {
		return id, nil
	}
	if len(b) != len(id.Event)+len(id.Subscription) {
		return id, fmt.Errorf("%w: %w", errUsage, errKey)
	}
	copy(id.Event[:], b)
	copy(id.Subscription[:], b[len(id.Event):])
	return id, nil
}

func decodeKey(b []byte) (key event.Key, err error) {
	if len(b) != len(key) {
		return key, fmt.Errorf("%w: %w", errUsage, errKey)
	}
	return event.Key(b), nil
}

func decodeSubscription(b []byte) (key event.SubscriptionKey, err error) {
	if len(b) != len(key) {
		return key, fmt.Errorf("%w: %w", errUsage, errKey)
	}
	return event.SubscriptionKey(b), nil
}

// accepted is when the event was accepted, in Unix nanoseconds.
func accepted(k event.Key) int64 { return int64(binary.BigEndian.Uint64(k[:8])) }

// tenantOf stands for a namespace in rows: 64 bits of its hash.
func tenantOf(namespace string) int64 {
	sum := sha256.Sum256([]byte(namespace))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// identity is 128 bits of a hash of an event's namespace and id.
type identity [16]byte

func identityOf(namespace, id string) identity {
	b := make([]byte, 0, 256) // stays on the stack: a namespace has at most 63 bytes, an id 128
	b = append(b, namespace...)
	b = append(b, 0)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return identity(sum[:16])
}
