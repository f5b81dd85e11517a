package signature

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far webhook-timestamp may be from a receiver's clock, to either side, unless it says otherwise:
// what the Standard Webhooks libraries allow.
const Tolerance = 5 * time.Minute

// Why a delivery is refused. Each is returned as it is, so that == and errors.Is both tell them apart.
var (
	ErrMissing   = errors.New("a signature header is missing")
	ErrMalformed = errors.New("a signature header is malformed")
	ErrExpired   = errors.New("the timestamp is outside the tolerance")
	ErrMismatch  = errors.New("no signature matches")
)

// VerifyStandard checks the Standard Webhooks signature of body against h, as net/http hands it to a handler: it
// succeeds if any of the keys made any of the signatures and the timestamp is within tolerance of now. Signatures of shared
// keys are compared in constant time. Of those of pairs, MaxAsymmetric are looked at. It is the scheme to prefer: it covers the delivery's id and the time, so that a recorded
// delivery cannot be played again later or under another id.
func (k Keys) VerifyStandard(h http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	id, timestamp, signatures := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderStandard)
	if id == "" || timestamp == "" || signatures == "" {
		return ErrMissing
	}
	// With a dot in the id, one signed content would read as several triples of id, time and body.
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || strings.Contains(id, ".") {
		return ErrMalformed
	}
	if seconds < now.Add(-tolerance).Unix() || seconds > now.Add(tolerance).Unix() {
		return ErrExpired
	}

	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.prefix = appendPrefix(s.prefix[:0], id, []byte(timestamp))
	for _, key := range k {
		if key.pair != nil {
			if key.verifyAsymmetric(s.prefix, body, signatures) {
				return nil
			}
			continue
		}
		s.text = key.appendStandard(s.text[:0], s, body)
		for signature := range strings.FieldsSeq(signatures) {
			if len(signature) == standardLength && subtle.ConstantTimeCompare([]byte(signature), s.text) == 1 {
				return nil
			}
		}
	}
	return ErrMismatch
}

// VerifyBody checks the X-Clinik-Signature of body, or X-ClinikAPI-Signature if h has only that: it succeeds if any of
// the keys made it. It is compared in constant time. This signature covers nothing but the body, so no time is checked:
// X-Clinik-Timestamp could be anyone's. A receiver that has to refuse old deliveries uses VerifyStandard.
func (k Keys) VerifyBody(h http.Header, body []byte) error {
	signature := h.Get(HeaderBody)
	if signature == "" {
		signature = h.Get(HeaderBodyAlias)
	}
	if signature == "" {
		return ErrMissing
	}
	if len(signature) != bodyLength {
		return ErrMalformed
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for _, key := range k {
		if key.pair != nil {
			continue // it makes no such signature
		}
		s.text = key.appendBody(s.text[:0], s, body)
		if subtle.ConstantTimeCompare([]byte(signature), s.text) == 1 {
			return nil
		}
	}
	return ErrMismatch
}
