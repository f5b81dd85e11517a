package operational

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// ReasonExpired says that a delivery was given up because of its age, without a last attempt.
const ReasonExpired = "Expired"

// Data is what an operational event says. It holds nothing of what was delivered, nor where to.
type Data struct {
	// ResourceType is WebhookSubscription or WebhookDelivery, ResourceID its name or id, and Action the end of the type.
	ResourceType string `json:"resourceType"`
	ResourceID   string `json:"resourceId"`
	Action       string `json:"action"`
	Namespace    string `json:"namespace"`
	Subscription string `json:"subscription"`
	// Reason and StatusCode of the last attempt.
	Reason     string `json:"reason,omitempty"`
	StatusCode int    `json:"statusCode,omitempty"`
	// Attempts that failed in a row, or were made for the delivery.
	Attempts int `json:"attempts,omitempty"`
	// DeliveryID, EventID and EventType are of the delivery that was given up.
	DeliveryID string `json:"deliveryId,omitempty"`
	EventID    string `json:"eventId,omitempty"`
	EventType  string `json:"eventType,omitempty"`
	// ActiveKeys is how many keys sign from now on.
	ActiveKeys int `json:"activeKeys,omitempty"`
	// Others of the same kind happened to the subscription since the last event, and have no event of their own.
	Others int `json:"others,omitempty"`
}

// happening is what is to be told.
type happening struct {
	engine.Happening
	activeKeys int
	others     int
}

// id follows from what happened, and not from who saw it or when.
func (h *happening) id() string {
	hash := sha256.New()
	hash.Write([]byte(h.Type))
	hash.Write([]byte{0})
	hash.Write(h.Subscription[:])
	var number [8]byte
	part := func(n int64) {
		binary.BigEndian.PutUint64(number[:], uint64(n))
		hash.Write(number[:])
	}
	switch h.Type {
	case event.DeliveryFailed:
		hash.Write([]byte(h.Delivery.String()))
		part(int64(h.Attempts))
		part(millis(h.Since))
	case event.EndpointGone, event.KeyRotated:
		part(h.Generation)
		part(millis(h.Run))
	default:
		part(millis(h.Run))
	}
	return "evt_" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(hash.Sum(nil)[:16]))
}

// millis is the time in milliseconds: a store may keep no more. The zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// data is what the event says. record is of the delivery that was given up, nil of others.
func (h *happening) data(route *routing.Route, record *store.Record) ([]byte, error) {
	d := Data{
		ResourceType: "WebhookSubscription", ResourceID: route.Name, Action: string(h.Type[strings.LastIndexByte(string(h.Type), '.')+1:]),
		Namespace: route.Namespace, Subscription: route.Name, Reason: string(h.Reason), StatusCode: h.StatusCode, Attempts: h.Attempts,
		ActiveKeys: h.activeKeys, Others: h.others,
	}
	if record != nil {
		d.ResourceType, d.ResourceID, d.DeliveryID = "WebhookDelivery", record.ID.String(), record.ID.String()
		d.EventID, d.EventType, d.Attempts = record.EventID, string(record.Type), record.AttemptCount
		d.describe(record)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode an operational event: %w", err)
	}
	return text, nil
}

// describe says why a delivery was given up, if its last attempt is not it.
func (d *Data) describe(record *store.Record) {
	switch n := len(record.Attempts); {
	case d.Reason != "":
	case record.Reason != "":
		d.Reason = string(record.Reason)
	case n > 0 && record.Attempts[n-1].Reason != "":
		d.Reason, d.StatusCode = string(record.Attempts[n-1].Reason), record.Attempts[n-1].StatusCode
	default:
		d.Reason = ReasonExpired
	}
}
