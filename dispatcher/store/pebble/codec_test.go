package pebble

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

var (
	someEvent    = event.NewKey(time.Unix(1e9, 5), "clinic-a", "evt-1")
	someDelivery = event.DeliveryID{Event: someEvent, Subscription: event.NewSubscriptionKey("x")}
	someAttempts = []delivery.Attempt{
		{Number: 1, Started: time.Unix(1e9, 7), Duration: time.Second, StatusCode: 500, Reason: "StatusCode"},
		{Number: 2, Started: time.Unix(1e9-5, 9), Duration: -1},
	}
)

// decoders read every kind of record, and write again what they read.
var decoders = map[string]func(value []byte) ([]byte, error){
	kindEvent: func(value []byte) ([]byte, error) {
		e, err := decodeEvent(someEvent, value)
		return appendEvent(nil, e), err
	},
	kindPending: func(value []byte) ([]byte, error) {
		p, err := decodePending(someEvent, value)
		return p.append(nil), err
	},
	kindHistory: func(value []byte) ([]byte, error) {
		h, err := decodeHistory(value)
		return h.append(nil), err
	},
	kindFinished: func(value []byte) ([]byte, error) {
		f, err := decodeFinished(value)
		return f.append(nil), err
	},
	kindCounts: func(value []byte) ([]byte, error) {
		c, err := decodeCounts(value)
		return appendCounts(nil, &c), err
	},
	kindIdempotency: func(value []byte) ([]byte, error) {
		a, err := decodeAcceptance(value)
		return a.append(nil), err
	},
	kindLatest: func(value []byte) ([]byte, error) {
		k, err := decodeLatest(value)
		return k.append(nil), err
	},
	kindSubscription: func(value []byte) ([]byte, error) {
		name, err := decodeName(value)
		return encodeName(name), err
	},
}

// records are good ones of each kind.
func records() map[string][][]byte {
	e := &delivery.Event{Tenant: "clinic-a", ID: strings.Repeat("i", 200), Type: "patient.created", Body: []byte("{}"), Traceparent: "00"}
	full := pending{since: 9, attempts: 7, before: 3, history: true, order: 1 << 63, size: 1 << 20}
	counts := tally{scheduled: 1 << 40, Counts: delivery.Counts{Delivered: 1, Retrying: 2, Failed: 3, Cancelled: 4, FailuresInARow: 5, Gone: 6, LastDelivered: time.Unix(7, 8), LastFailure: someAttempts[0]}}
	planned := pending{planned: 1 << 60, key: plan.Key{1, 2}, size: 9}
	attempted := full
	attempted.planned, attempted.key = 5, plan.Key{3}
	return map[string][][]byte{
		kindEvent:   {appendEvent(nil, e), appendEvent(nil, &delivery.Event{}), appendEvent(nil, &delivery.Event{Sealed: true, ID: "~x", Body: make([]byte, delivery.SealedExtra+1)})},
		kindPending: {(&pending{size: 9}).append(nil), (&pending{order: 5}).append(nil), full.append(nil), planned.append(nil), (&pending{planned: 7}).append(nil)},
		kindHistory: {
			(&history{pending: full, due: 8, replayOf: someDelivery, list: someAttempts}).append(nil),
			(&history{pending: pending{history: true}}).append(nil),
			(&history{pending: attempted, due: 8, list: someAttempts}).append(nil),
		},
		kindFinished: {
			(&finished{state: delivery.Failed, attempts: 60, replayOf: someDelivery, list: someAttempts}).append(nil),
			(&finished{state: delivery.Delivered}).append(nil),
			(&finished{state: delivery.Cancelled, reason: delivery.ReasonReplaced, planned: 7, key: plan.Key{1}}).append(nil),
			(&finished{state: delivery.Cancelled, reason: delivery.ReasonPast, key: plan.Key{1}}).append(nil),
		},
		kindCounts: {appendCounts(nil, &counts), appendCounts(nil, &tally{}), appendCounts(nil, &tally{scheduled: 1})},
		kindLatest: {
			(&latest{timestamp: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), event: someEvent}).append(nil),
			(&latest{ended: 9}).append(nil),
		},
		kindIdempotency:  {(&acceptance{digest: [16]byte{1}, accepted: 2, count: 3}).append(nil)},
		kindSubscription: {encodeName("billing"), encodeName("")},
	}
}

func TestRecordsReadBack(t *testing.T) {
	t.Parallel()
	for kind, all := range records() {
		for _, value := range all {
			again, err := decoders[kind](value)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			if diff := cmp.Diff(value, again); diff != "" {
				t.Errorf("%s (-want +got):\n%s", kind, diff)
			}
		}
	}
	e := &delivery.Event{Tenant: "n", ID: strings.Repeat("i", 128), Type: "t", Body: make([]byte, 300)}
	if want, got := len(appendEvent(nil, e)), eventLength(e); want != got {
		t.Errorf("an event has %d bytes, not %d", want, got)
	}
}

// TestDamagedRecords cuts each record short at every place.
func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	for kind, all := range records() {
		for _, value := range all {
			bodies := 0
			if kind == kindEvent {
				bodies = 2 // any rest of an event is a body
			}
			for n := range len(value) - bodies {
				damaged := (*DamagedError)(nil)
				if _, err := decoders[kind](value[:n]); !errors.As(err, &damaged) || damaged.Kind != kind {
					t.Errorf("%s cut to %d of %d bytes: %v", kind, n, len(value), err)
				}
			}
			newer := append([]byte{recordVersion + 1}, value[1:]...)
			if _, err := decoders[kind](newer); err == nil || !strings.Contains(err.Error(), kind) {
				t.Errorf("newer %s: %v", kind, err)
			}
		}
	}
}

// FuzzRecords reads any bytes as any kind: an error that names it, or a record; never a panic.
func FuzzRecords(f *testing.F) {
	for _, all := range records() {
		for _, value := range all {
			f.Add(value)
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for kind, decode := range decoders {
			again, err := decode(value)
			if err != nil {
				if !strings.Contains(err.Error(), kind) {
					t.Errorf("%s: %v", kind, err)
				}
				continue
			}
			if third, err := decode(again); err != nil || !bytes.Equal(third, again) {
				t.Errorf("%s does not read back: %v", kind, err)
			}
		}
	})
}
