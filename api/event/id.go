package event

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// The prefixes of identifiers on the wire.
const (
	eventPrefix    = "evt_"
	deliveryPrefix = "dlv_"
)

// ordered is base32 in an alphabet whose text sorts as the bytes do (RFC 4648, section 7), in lower case.
var ordered = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewID returns a fresh event id, "evt_" and 26 characters. Ids sort by now to the millisecond; the other 80 bits are
// random.
func NewID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails: crypto/rand ends the process instead
	return eventPrefix + ordered.EncodeToString(b[:])
}

// TimeOf returns when NewID made an id, to the millisecond, and false if the id was not made by it.
func TimeOf(id string) (made time.Time, ok bool) {
	text, found := strings.CutPrefix(id, eventPrefix)
	raw, err := ordered.DecodeString(text)
	if !found || err != nil || len(raw) != 16 || ordered.EncodeToString(raw) != text {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(raw[:8]) >> 16)), true
}

// maxIDLength bounds a producer's event id, in bytes.
const maxIDLength = 128

// CheckID returns an error that says what an id may be unless id is 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-'.
func CheckID(id string) error {
	ok := id != "" && len(id) <= maxIDLength && strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != ':' && r != '-'
	}) < 0
	if !ok {
		return fmt.Errorf("want 1 to %d of A-Z, a-z, 0-9, '.', '_', ':' and '-'", maxIDLength)
	}
	return nil
}

// Key names an accepted event within a store: the nanosecond of its acceptance, then 64 bits of a hash of its namespace
// and id. A dispatcher never accepts two events at one nanosecond, so Keys sort in the order of acceptance.
type Key [16]byte

// NewKey returns the key of the event that namespace's producer calls id, accepted at the given time.
func NewKey(accepted time.Time, namespace, id string) Key {
	var k Key
	binary.BigEndian.PutUint64(k[:8], uint64(accepted.UnixNano()))
	h := sha256.New()
	h.Write([]byte(namespace))
	h.Write([]byte{0}) // no namespace contains it, so no two pairs hash the same text
	h.Write([]byte(id))
	var sum [sha256.Size]byte
	copy(k[8:], h.Sum(sum[:0]))
	return k
}

// Accepted is when the event was accepted, to the nanosecond.
func (k Key) Accepted() time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(k[:8])))
}

// SubscriptionKey names a subscription within a store: 64 bits of a hash of its identity (metadata.uid, or
// namespace/name where a manifest has no uid).
type SubscriptionKey [8]byte

// NewSubscriptionKey returns the key of the subscription with the given identity.
func NewSubscriptionKey(identity string) SubscriptionKey {
	sum := sha256.Sum256([]byte(identity))
	return SubscriptionKey(sum[:8])
}

// DeliveryID names one event's way to one subscription. It follows from the two, so an event that is appended twice
// still causes each delivery once. Its text, "dlv_" and 39 characters, sorts by the event's acceptance.
type DeliveryID struct {
	Event        Key
	Subscription SubscriptionKey
}

// String returns the id as it stands on the wire.
func (d DeliveryID) String() string {
	b, _ := d.AppendText(make([]byte, 0, 48))
	return string(b)
}

// AppendText appends the id as it stands on the wire; the error is always nil.
func (d DeliveryID) AppendText(b []byte) ([]byte, error) {
	var raw [24]byte
	copy(raw[:16], d.Event[:])
	copy(raw[16:], d.Subscription[:])
	return ordered.AppendEncode(append(b, deliveryPrefix...), raw[:]), nil
}

// ParseDeliveryID returns the id written as s, or an error if no dispatcher wrote it.
func ParseDeliveryID(s string) (DeliveryID, error) {
	text, found := strings.CutPrefix(s, deliveryPrefix)
	raw, err := ordered.DecodeString(text)
	if !found || err != nil || len(raw) != 24 || ordered.EncodeToString(raw) != text {
		return DeliveryID{}, fmt.Errorf("%q is not a delivery id (dlv_ and 39 characters)", s)
	}
	return DeliveryID{Event: Key(raw[:16]), Subscription: SubscriptionKey(raw[16:])}, nil
}
