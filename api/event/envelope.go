package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// TimeFormat is how an envelope writes its timestamp: UTC, to the millisecond (RFC 3339).
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Envelope is the JSON body of a delivery, as a consumer decodes it.
type Envelope struct {
	// ID is the event's id, chosen by the producer or "evt_…".
	ID string `json:"id"`
	// Event and Type hold the same value: some of ClinikAPI's receivers read one, some the other.
	Event Type `json:"event"`
	Type  Type `json:"type"`
	// Timestamp is when it happened, as the producer said, else when it was accepted.
	Timestamp time.Time `json:"timestamp"`
	// Data is the object that the producer sent, byte for byte.
	Data json.RawMessage `json:"data"`
}

// AppendBody appends the body of a delivery in full mode: exactly the bytes that are signed and sent. data must be a
// valid JSON object and id have passed CheckID; both are written as they are.
func AppendBody(b []byte, id string, t Type, timestamp time.Time, data []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, id...)
	b = append(b, `","event":"`...)
	b = append(b, t...)
	b = append(b, `","type":"`...)
	b = append(b, t...)
	b = append(b, `","timestamp":"`...)
	b = timestamp.UTC().AppendFormat(b, TimeFormat)
	b = append(b, `","data":`...)
	b = append(b, data...)
	return append(b, '}')
}

// thinKeys are the keys of data that a thin delivery keeps, in the order in which it writes them.
var thinKeys = []string{"resourceType", "resourceId", "action", "tenantId"}

// ThinBody returns the body of a delivery in thin mode, given the full one: the same envelope, with those of data's
// keys that name the resource and nothing of what it holds. The id of a FHIR resource, which has a resourceType and no
// resourceId, is written as its resourceId.
func ThinBody(full []byte) ([]byte, error) {
	var envelope struct {
		ID        string                     `json:"id"`
		Type      Type                       `json:"type"`
		Timestamp time.Time                  `json:"timestamp"`
		Data      map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(full, &envelope); err != nil {
		return nil, fmt.Errorf("decode the body to thin: %w", err)
	}
	if _, ok := envelope.Data["resourceId"]; !ok && envelope.Data["resourceType"] != nil && isScalar(envelope.Data["id"]) {
		envelope.Data["resourceId"] = envelope.Data["id"]
	}
	data := []byte{'{'}
	for _, key := range thinKeys {
		value, ok := envelope.Data[key]
		if !ok {
			continue
		}
		if len(data) > 1 {
			data = append(data, ',')
		}
		data = append(data, '"')
		data = append(data, key...)
		data = append(data, `":`...)
		data = append(data, value...)
	}
	data = append(data, '}')
	return AppendBody(nil, envelope.ID, envelope.Type, envelope.Timestamp, data), nil
}

// isScalar reports whether a JSON value is a string or a number.
func isScalar(value json.RawMessage) bool {
	return len(value) > 0 && (value[0] == '"' || value[0] == '-' || (value[0] >= '0' && value[0] <= '9'))
}
