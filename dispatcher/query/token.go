package query

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// A continue token is a version, the last delivery seen, and a checksum over these and over what was asked. The checksum
// has no key: whoever may ask at all may ask from any place on, so it only has to tell a token that was damaged, or that
// belongs to another question, from a good one; and any replica, and one that was restarted, can check it.
const (
	tokenVersion  = 1
	tokenPosition = 24
	tokenChecksum = 8
	tokenLength   = 1 + tokenPosition + tokenChecksum
)

// tokenEncoding refuses what it would not write itself.
var tokenEncoding = base64.RawURLEncoding.Strict()

// continueToken returns the token that goes on behind last. purpose keeps the tokens of a list and of a replay apart.
func continueToken(purpose string, query *store.Query, last event.DeliveryID) string {
	token := make([]byte, 0, tokenLength)
	token = append(token, tokenVersion)
	token = append(token, last.Event[:]...)
	token = append(token, last.Subscription[:]...)
	return tokenEncoding.EncodeToString(appendChecksum(token, purpose, query))
}

// parseContinueToken returns where the token goes on.
func parseContinueToken(purpose string, query *store.Query, text string) (event.DeliveryID, error) {
	token, err := tokenEncoding.DecodeString(text)
	if err != nil || len(token) != tokenLength || token[0] != tokenVersion {
		return event.DeliveryID{}, badToken()
	}
	position := token[:1+tokenPosition]
	if !bytes.Equal(token, appendChecksum(bytes.Clone(position), purpose, query)) {
		return event.DeliveryID{}, badToken()
	}
	return event.DeliveryID{Event: event.Key(position[1:17]), Subscription: event.SubscriptionKey(position[17:])}, nil
}

func badToken() error {
	return invalid("continue must be as the last answer gave it, with the same other parameters (limit may change)")
}

func appendChecksum(token []byte, purpose string, query *store.Query) []byte {
	var text []byte
	for _, part := range []string{purpose, query.Tenant, query.Subscription, query.State.String()} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	text = query.Since.UTC().AppendFormat(text, "2006-01-02T15:04:05.999999999Z/")
	text = query.Until.UTC().AppendFormat(text, "2006-01-02T15:04:05.999999999Z/")
	if query.Scheduled || !query.Key.IsZero() { // so that the tokens of other questions are those of earlier versions
		text = append(append(text, "scheduled/"...), query.Key[:]...)
		text = strconv.AppendBool(text, query.Scheduled)
	}
	sum := sha256.Sum256(append(text, token...))
	return append(token, sum[:tokenChecksum]...)
}
