package pebble

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// The keyspaces; see the package comment.
const (
	spaceCounts       = 'c'
	spaceDelivered    = 'd'
	spaceEvent        = 'e'
	spaceFailed       = 'f'
	spaceFailedEvent  = 'g'
	spaceIdempotency  = 'i'
	spaceLatest       = 'k'
	spaceLate         = 'l'
	spaceMeta         = 'm'
	spaceKeyed        = 'n'
	spaceOrder        = 'o'
	spacePending      = 'p'
	spaceHistory      = 'r'
	spaceSubscription = 's'
	spaceWaiting      = 'v'
	spaceComing       = 'w'
	spaceForget       = 'y'
)

const (
	hour = uint64(time.Hour)
	day  = 24 * hour
)

// bucketOf is the number of the span of the given width that ns falls into.
func bucketOf(ns, width uint64) uint32 { return uint32(min(ns/width, math.MaxUint32)) }

// nanos is t in Unix nanoseconds, 0 for what lies before and the greatest for what lies too far ahead.
func nanos(t time.Time) uint64 {
	switch {
	case t.Unix() < 0:
		return 0
	case t.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	default:
		return uint64(t.UnixNano())
	}
}

// moment is the time that nanos wrote.
func moment(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// accepted is when the event was accepted, in Unix nanoseconds.
func accepted(k event.Key) uint64 { return binary.BigEndian.Uint64(k[:8]) }

// tenant is the part of a key that stands for a namespace: 64 bits of its hash.
type tenant [8]byte

func tenantOf(namespace string) tenant {
	sum := sha256.Sum256([]byte(namespace))
	return tenant(sum[:8])
}

// identity is 128 bits of a hash of an event's namespace and id.
type identity [16]byte

func identityOf(namespace, id string) identity {
	b := make([]byte, 0, 256) // stays on the stack: a namespace has at most 63 bytes, an id 128
	b = append(b, namespace...)
	b = append(b, 0)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return identity(sum[:16])
}

// eventKey is event.NewKey of the namespace and id: they are hashed in the same way.
func (id identity) eventKey(accepted uint64) event.Key {
	var k event.Key
	binary.BigEndian.PutUint64(k[:8], accepted)
	copy(k[8:], id[:])
	return k
}

func appendPendingKey(b []byte, sub event.SubscriptionKey, due uint64, key event.Key) []byte {
	b = append(b, spacePending)
	b = append(b, sub[:]...)
	b = binary.BigEndian.AppendUint64(b, due)
	return append(b, key[:]...)
}

// parsePendingKey returns the parts of a key of pendingKeyLength.
func parsePendingKey(k []byte) (sub event.SubscriptionKey, due uint64, key event.Key) {
	return event.SubscriptionKey(k[1:9]), binary.BigEndian.Uint64(k[9:17]), event.Key(k[17:33])
}

const pendingKeyLength = 33

func appendHistoryKey(b []byte, sub event.SubscriptionKey, key event.Key) []byte {
	return append(appendSubscriptionKey(b, spaceHistory, sub), key[:]...)
}

// appendWaitingKey is like appendHistoryKey, for a delivery that waits for its planned time.
func appendWaitingKey(b []byte, sub event.SubscriptionKey, key event.Key) []byte {
	return append(appendSubscriptionKey(b, spaceWaiting, sub), key[:]...)
}

// historyKeyLength is that of the keys of spaceHistory and spaceWaiting.
const historyKeyLength = 25

// appendComingKey is like appendPendingKey, for a delivery that waits for its planned time.
func appendComingKey(b []byte, sub event.SubscriptionKey, due uint64, key event.Key) []byte {
	from := len(b)
	b = appendPendingKey(b, sub, due, key)
	b[from] = spaceComing
	return b
}

// planKey is a schedule's key of a subscription.
type planKey struct {
	sub event.SubscriptionKey
	key plan.Key
}

const planKeyLength = len(event.SubscriptionKey{}) + len(plan.Key{})

func (k *planKey) append(b []byte) []byte {
	b = append(b, k.sub[:]...)
	return append(b, k.key[:]...)
}

func parsePlanKey(b []byte) planKey {
	return planKey{sub: event.SubscriptionKey(b[:8]), key: plan.Key(b[8:planKeyLength])}
}

func appendLatestKey(b []byte, k planKey) []byte { return k.append(append(b, spaceLatest)) }

// appendKeyedKey appends the key of a pending delivery of k.
func appendKeyedKey(b []byte, k planKey, key event.Key) []byte {
	b = k.append(append(b, spaceKeyed))
	return append(b, key[:]...)
}

const keyedKeyLength = 1 + planKeyLength + len(event.Key{})

func appendForgetKey(b []byte, bucket uint32, k planKey) []byte {
	return k.append(appendBucketKey(b, spaceForget, bucket))
}

const forgetKeyLength = 1 + 4 + planKeyLength

func appendOrderKey(b []byte, sub event.SubscriptionKey, order uint64, key event.Key) []byte {
	b = append(b, spaceOrder)
	b = append(b, sub[:]...)
	b = binary.BigEndian.AppendUint64(b, order)
	return append(b, key[:]...)
}

const orderKeyLength = 33

// eventKeyLength is that of the keys of spaceEvent, spaceFailedEvent and spaceLate.
const eventKeyLength = 21

// parseEventKey returns the parts of a key of eventKeyLength.
func parseEventKey(k []byte) (bucket uint32, key event.Key) {
	return binary.BigEndian.Uint32(k[1:5]), event.Key(k[5:21])
}

// eventStays reports whether an event that is being stored under the given key stays, although all that was accepted
// before the horizon, in Unix nanoseconds, and is not owed is dropped. Events that were moved lie in later buckets.
func eventStays(k []byte, horizon uint64) bool {
	if len(k) != eventKeyLength {
		return true
	}
	bucket, key := parseEventKey(k)
	if bucketOf(accepted(key), hour) == bucket {
		return accepted(key) >= horizon
	}
	return uint64(bucket)*hour >= horizon
}

// firstKey is the smallest key of an event that was accepted at the given time or later.
func firstKey(ns uint64) event.Key {
	var k event.Key
	binary.BigEndian.PutUint64(k[:8], ns)
	return k
}

// appendEventKey appends a key of spaceEvent, spaceFailedEvent or spaceLate.
func appendEventKey(b []byte, space byte, bucket uint32, key event.Key) []byte {
	b = appendBucketKey(b, space, bucket)
	return append(b, key[:]...)
}

// appendFinishedKey appends a key of spaceDelivered or spaceFailed.
func appendFinishedKey(b []byte, space byte, bucket uint32, t tenant, id event.DeliveryID) []byte {
	b = appendBucketKey(b, space, bucket)
	b = append(b, t[:]...)
	b = append(b, id.Event[:]...)
	return append(b, id.Subscription[:]...)
}

const finishedKeyLength = 37

func appendIdempotencyKey(b []byte, bucket uint32, id identity) []byte {
	b = appendBucketKey(b, spaceIdempotency, bucket)
	return append(b, id[:]...)
}

const idempotencyKeyLength = 21

// appendBucketKey appends what the keys of a bucket begin with.
func appendBucketKey(b []byte, space byte, bucket uint32) []byte {
	b = append(b, space)
	return binary.BigEndian.AppendUint32(b, bucket)
}

func appendSubscriptionKey(b []byte, space byte, sub event.SubscriptionKey) []byte {
	b = append(b, space)
	return append(b, sub[:]...)
}

// successor is the smallest key that is greater than all that begin with prefix, which holds a byte below 0xff.
func successor(prefix []byte) []byte {
	b := slices.Clone(prefix)
	for i := len(b) - 1; ; i-- {
		b[i]++
		if b[i] != 0 {
			return b[:i+1]
		}
	}
}
