package pull

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// The errors of a cursor. The way on from each is a call without one: what is not acknowledged comes again.
var (
	// ErrCursorInvalid: no dispatcher wrote it, or it was damaged on its way.
	ErrCursorInvalid = errors.New("the cursor is not one that an answer gave")
	// ErrCursorForeign: it is another subscription's, or that of an earlier one with the same name.
	ErrCursorForeign = errors.New("the cursor is of another subscription")
	// ErrCursorExpired: it is older than CursorAge.
	ErrCursorExpired = errors.New("the cursor has expired")
)

const (
	// CursorAge is how long after its answer a cursor acknowledges.
	CursorAge = 24 * time.Hour
	// cursorAhead is how far the clock of the replica that gave a cursor may be ahead of this one's.
	cursorAhead = time.Minute
)

// A cursor is a version, the subscription, when it was given, the positions of the first and the last delivery of the page, a
// fingerprint of each, and a checksum. As a continue token's, the checksum has no key, so that any replica, and one that was
// restarted, can check it: it finds damage, and proves nothing. Anyone who may pull can forge a cursor. One that no page can
// have had is refused, and none acknowledges what is not due, or makes a call look at more than maxNamed deliveries.
const (
	cursorVersion   = 1
	subscriptionAt  = 1
	givenAt         = subscriptionAt + len(event.SubscriptionKey{})
	firstAt         = givenAt + 8
	positionLength  = 8 + len(event.Key{})
	lastAt          = firstAt + positionLength
	printsAt        = lastAt + positionLength
	printLength     = 6
	checksumLength  = 8
	maxCursorLength = printsAt + MaxLimit*printLength + checksumLength
)

// cursorEncoding refuses what it would not write itself.
var cursorEncoding = base64.RawURLEncoding.Strict()

// fingerprint stands for a delivery of a subscription, and for when it was due: a replay is another.
type fingerprint [printLength]byte

func fingerprintOf(p delivery.Position) (f fingerprint) {
	sum := sha256.Sum256(appendPosition(nil, p))
	copy(f[:], sum[:])
	return f
}

// cursor is what a page's cursor says.
type cursor struct {
	subscription event.SubscriptionKey
	given        time.Time
	first, last  delivery.Position
	prints       []fingerprint
}

// add adds a delivery of the page. They come in the order of their positions.
func (c *cursor) add(p delivery.Position) {
	if len(c.prints) == 0 {
		c.first = p
	}
	c.last = p
	c.prints = append(c.prints, fingerprintOf(p))
}

func appendPosition(b []byte, p delivery.Position) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Due.UnixNano()))
	return append(b, p.Event[:]...)
}

func parsePosition(b []byte) delivery.Position {
	return delivery.Position{Due: time.Unix(0, int64(binary.BigEndian.Uint64(b))), Event: event.Key(b[8:positionLength])}
}

// String is the cursor as answers have it.
func (c *cursor) String() string {
	b := make([]byte, 0, printsAt+len(c.prints)*printLength+checksumLength)
	b = append(b, cursorVersion)
	b = append(b, c.subscription[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.given.UnixNano()))
	b = appendPosition(appendPosition(b, c.first), c.last)
	for i := range c.prints {
		b = append(b, c.prints[i][:]...)
	}
	return cursorEncoding.EncodeToString(appendChecksum(b))
}

func appendChecksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("pull\x00"), b...))
	return append(b, sum[:checksumLength]...)
}

// parseCursor reads a cursor of the subscription.
func parseCursor(text string, of event.SubscriptionKey, now time.Time) (c cursor, err error) {
	if len(text) > cursorEncoding.EncodedLen(maxCursorLength) {
		return c, ErrCursorInvalid
	}
	b, err := cursorEncoding.DecodeString(text)
	end := len(b) - checksumLength
	if err != nil || end < printsAt+printLength || (end-printsAt)%printLength != 0 || b[0] != cursorVersion || !bytes.Equal(appendChecksum(bytes.Clone(b[:end])), b) {
		return c, ErrCursorInvalid
	}
	c.subscription = event.SubscriptionKey(b[subscriptionAt:givenAt])
	c.given = time.Unix(0, int64(binary.BigEndian.Uint64(b[givenAt:])))
	c.first, c.last = parsePosition(b[firstAt:]), parsePosition(b[lastAt:])
	for at := printsAt; at < end; at += printLength {
		c.prints = append(c.prints, fingerprint(b[at:at+printLength]))
	}
	switch {
	case c.subscription != of:
		return c, ErrCursorForeign
	case now.Sub(c.given) > CursorAge:
		return c, ErrCursorExpired
	case c.given.Sub(now) > cursorAhead, c.last.Due.After(c.given), c.last.Before(c.first):
		return c, ErrCursorInvalid
	}
	return c, nil
}
