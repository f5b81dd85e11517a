package receiver

import (
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/clinikapi/eventflow/api/event"
)

// ErrNotEvent is returned for a body that is signed, but is not the JSON of an event (docs/wire.md).
var ErrNotEvent = errors.New("the body is not an event")

// Event is a verified delivery.
type Event struct {
	event.Envelope
	// DeliveryID is the same on every attempt, and another for every subscription and replay.
	DeliveryID string
	// SentAt is when this attempt was signed; zero with BodyOnly.
	SentAt time.Time
	// Attempt is 1 for the first, and 0 if the header is missing. No signature covers it.
	Attempt int
	// Raw is the body as it was signed. It must not be changed.
	Raw []byte
}

// decode reads an envelope. Names are compared exactly, unlike encoding/json does for structs, so that the three
// receivers read one body alike.
func decode(body []byte) (event.Envelope, error) {
	var fields map[string]json.RawMessage
	if !utf8.Valid(body) || json.Unmarshal(body, &fields) != nil {
		return event.Envelope{}, ErrNotEvent
	}
	var e event.Envelope
	for name, target := range map[string]any{"id": &e.ID, "event": &e.Event, "type": &e.Type, "timestamp": &e.Timestamp} {
		if raw, ok := fields[name]; ok && json.Unmarshal(raw, target) != nil {
			return event.Envelope{}, ErrNotEvent
		}
	}
	e.Type, e.Event = orDefault(e.Type, e.Event), orDefault(e.Event, e.Type)
	e.Data = fields["data"]
	if e.ID == "" || e.Type == "" || e.Type != e.Event || e.Timestamp.IsZero() || len(e.Data) == 0 || e.Data[0] != '{' {
		return event.Envelope{}, ErrNotEvent
	}
	return e, nil
}
