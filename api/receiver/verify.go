package receiver

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

// The headers that are read beside those of package signature.
const (
	headerDeliveryID = "X-Clinik-Delivery-Id"
	headerAttempt    = "X-Clinik-Attempt"
)

// The bounds of what a signature header may hold, in bytes.
const (
	maxIDLength        = 256
	maxTimestampLength = 15 // every such number is exact in JavaScript
)

// verified is what the headers say of a delivery whose signature is right.
type verified struct {
	id     string
	key    string // what deduplication remembers
	sentAt time.Time
}

// Verify checks the signature of body against h, and returns the event. It is for frameworks that are not net/http; it
// neither routes nor deduplicates. The errors are those of package signature and ErrNotEvent, for use with errors.Is.
func (r *Receiver) Verify(h http.Header, body []byte) (Event, error) {
	v, err := r.verify(h, body)
	if err != nil {
		return Event{}, err
	}
	return read(h, body, v)
}

// read parses a verified body.
func read(h http.Header, body []byte, v verified) (Event, error) {
	envelope, err := decode(body)
	if err != nil {
		return Event{}, err
	}
	attempt, err := strconv.ParseUint(h.Get(headerAttempt), 10, 31)
	if err != nil {
		attempt = 0
	}
	return Event{Envelope: envelope, DeliveryID: v.id, SentAt: v.sentAt, Attempt: int(attempt), Raw: body}, nil
}

// verify checks a signature by the scheme of the configuration.
func (r *Receiver) verify(h http.Header, body []byte) (verified, error) {
	keys := *r.keys.Load()
	if r.config.Scheme == BodyOnly {
		return verifyBody(keys, h, body)
	}
	id, err := single(h, signature.HeaderID)
	if err != nil {
		return verified{}, err
	}
	timestamp, err := single(h, signature.HeaderTimestamp)
	if err != nil {
		return verified{}, err
	}
	signatures, err := single(h, signature.HeaderStandard)
	if err != nil {
		return verified{}, err
	}
	if !isID(id) || !isTimestamp(timestamp) || !isList(signatures) {
		return verified{}, signature.ErrMalformed
	}
	if err := keys.VerifyStandard(h, body, r.config.Now(), r.config.Tolerance); err != nil {
		return verified{}, err
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return verified{}, signature.ErrMalformed
	}
	return verified{id: id, key: id, sentAt: time.Unix(seconds, 0)}, nil
}

// verifyBody checks X-Clinik-Signature. No signature covers the delivery's id, so what is remembered is the id with the
// body: else whoever replays one delivery under the id of another would have that one taken for handled.
func verifyBody(keys signature.Keys, h http.Header, body []byte) (verified, error) {
	name := signature.HeaderBody
	if len(h.Values(name)) == 0 {
		name = signature.HeaderBodyAlias
	}
	if _, err := single(h, name); err != nil {
		return verified{}, err
	}
	if err := keys.VerifyBody(h, body); err != nil {
		return verified{}, err
	}
	id, err := single(h, headerDeliveryID)
	if err != nil {
		return verified{}, err
	}
	if !isID(id) {
		return verified{}, signature.ErrMalformed
	}
	sum := sha256.Sum256(body)
	return verified{id: id, key: id + "." + hex.EncodeToString(sum[:16])}, nil
}

// single returns the value of a header that must be there once: which of two is meant depends on who reads them.
func single(h http.Header, name string) (string, error) {
	values := h.Values(name)
	switch {
	case len(values) > 1:
		return "", signature.ErrMalformed
	case len(values) == 0, values[0] == "":
		return "", signature.ErrMissing
	}
	return values[0], nil
}

// isID reports whether an id is 1 to 256 of the visible ASCII characters but '.', which separates what is signed, and
// ',', by which a proxy joins repeated headers.
func isID(id string) bool {
	return len(id) <= maxIDLength && strings.IndexFunc(id, func(c rune) bool { return c <= ' ' || c > '~' || c == '.' || c == ',' }) < 0
}

// isTimestamp reports whether a time is 1 to 15 digits.
func isTimestamp(text string) bool {
	return len(text) <= maxTimestampLength && strings.IndexFunc(text, func(c rune) bool { return c < '0' || c > '9' }) < 0
}

// isList reports whether signatures are printable ASCII between spaces, and not the values of repeated headers that a
// proxy joined, by a comma and a space.
func isList(signatures string) bool {
	odd := func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }
	return strings.IndexFunc(signatures, odd) < 0 &&
		!strings.Contains(signatures, ", ") && !strings.Contains(signatures, ",\t") && !strings.HasSuffix(signatures, ",")
}
