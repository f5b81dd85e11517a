package signature

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The names of the headers, as they are written on the wire. HTTP compares names without regard to case, but a map
// lookup in http.Header does not: only the first is in the canonical form that http.Header.Get looks up as it stands.
const (
	// HeaderBody and HeaderBodyAlias carry the lower-case hex HMAC-SHA256 of the raw body by the first shared key.
	HeaderBody      = "X-Clinik-Signature"
	HeaderBodyAlias = "X-ClinikAPI-Signature"
	// HeaderID, HeaderTimestamp and HeaderStandard are those of Standard Webhooks 1.0.
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderStandard  = "webhook-signature"
)

// version precedes each signature of Standard Webhooks made with a shared key, and asymmetricVersion each that is made with a
// private one.
const (
	version           = "v1,"
	asymmetricVersion = "v1a,"
)

// scratch is what signing needs and does not return.
type scratch struct {
	text   []byte // of the headers, one behind the other
	prefix []byte // id.timestamp. of the signed content
	sum    []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Header sets the signature headers of a delivery: both schemes, by the names that product receivers read, with
// the keys spelled exactly so. at is when this attempt is sent. There must be at least one key; every key adds a
// signature to webhook-signature, and the first shared one alone signs X-Clinik-Signature. Without a shared key, that header
// and its alias are not set.
func (k Keys) Header(h http.Header, deliveryID string, at time.Time, body []byte) {
	s := scratches.Get().(*scratch)
	s.text = strconv.AppendInt(s.text[:0], at.Unix(), 10)
	timeEnd := len(s.text)
	s.prefix = appendPrefix(s.prefix[:0], deliveryID, s.text)

	shared := k.shared()
	if shared != nil {
		s.text = shared.appendBody(s.text, s, body)
	}
	bodyEnd := len(s.text)
	s.text = k.appendAll(s.text, s, body)

	// One string and one array hold all the values, at the price of two allocations.
	text := string(s.text)
	values := []string{deliveryID, text[:timeEnd], text[timeEnd:bodyEnd], text[bodyEnd:]}
	scratches.Put(s)
	h[HeaderID] = values[0:1:1]
	h[HeaderTimestamp] = values[1:2:2]
	if shared != nil {
		h[HeaderBody] = values[2:3:3]
		h[HeaderBodyAlias] = values[2:3:3]
	}
	h[HeaderStandard] = values[3:4:4]
}

// AppendHeader appends the same headers as they stand on the wire, each a line (RFC 9112, section 5).
func (k Keys) AppendHeader(b []byte, deliveryID string, at time.Time, body []byte) []byte {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.text = strconv.AppendInt(s.text[:0], at.Unix(), 10)
	s.prefix = appendPrefix(s.prefix[:0], deliveryID, s.text)
	b = appendLine(b, HeaderID, deliveryID)
	b = appendLine(b, HeaderTimestamp, s.text)
	if shared := k.shared(); shared != nil {
		s.text = shared.appendBody(s.text[:0], s, body)
		b = appendLine(b, HeaderBody, s.text)
		b = appendLine(b, HeaderBodyAlias, s.text)
	}
	s.text = k.appendAll(s.text[:0], s, body)
	return appendLine(b, HeaderStandard, s.text)
}

// appendAll appends the signatures of all keys, separated by spaces.
func (k Keys) appendAll(b []byte, s *scratch, body []byte) []byte {
	for i, key := range k {
		if i > 0 {
			b = append(b, ' ')
		}
		b = key.appendStandard(b, s, body)
	}
	return b
}

// shared is the first key that is not one of a pair; nil if there is none.
func (k Keys) shared() *Key {
	for _, key := range k {
		if key.pair == nil {
			return key
		}
	}
	return nil
}

func appendLine[T string | []byte](b []byte, name string, value T) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// appendPrefix appends what the standard signature covers before the body.
func appendPrefix(b []byte, id string, timestamp []byte) []byte {
	b = append(append(b, id...), '.')
	return append(append(b, timestamp...), '.')
}

// appendBody appends the lower-case hex HMAC of body.
func (k *Key) appendBody(b []byte, s *scratch, body []byte) []byte {
	s.sum = k.sum(s.sum[:0], body)
	return hex.AppendEncode(b, s.sum)
}

// appendStandard appends "v1," and the base64 HMAC of s.prefix and body, or "v1a," and their ed25519 signature.
func (k *Key) appendStandard(b []byte, s *scratch, body []byte) []byte {
	if k.pair != nil {
		return k.appendAsymmetric(b, s, body)
	}
	s.sum = k.sum(s.sum[:0], s.prefix, body)
	return base64.StdEncoding.AppendEncode(append(b, version...), s.sum)
}

// The lengths of one signature's text.
const (
	bodyLength     = 2 * sha256.Size
	standardLength = len(version) + (sha256.Size+2)/3*4
)
