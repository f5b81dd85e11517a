package apiserver

import (
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// uidOf is an object's uid: it follows from the name, so that all replicas say the same (RFC 9562, version 8).
func uidOf(name string) types.UID {
	sum := sha256.Sum256([]byte(name))
	var id uuid.UUID
	copy(id[:], sum[:])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return types.UID(id.String())
}

func metaOf(namespace, name string, created time.Time, revision uint64) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: namespace, UID: uidOf(name), CreationTimestamp: metav1.NewTime(created.UTC().Truncate(time.Second)),
		ResourceVersion: strconv.FormatUint(revision, 10),
	}
}

func timeOf(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	return &metav1.MicroTime{Time: t.UTC()}
}

// deliveryOf is a record as an object. key is what the list was selected by.
func deliveryOf(r *store.Record, namespace, key string, revision uint64, now time.Time) v1alpha1.WebhookDelivery {
	d := v1alpha1.WebhookDelivery{
		TypeMeta:   metav1.TypeMeta{Kind: "WebhookDelivery", APIVersion: v1alpha1.GroupVersion.String()},
		ObjectMeta: metaOf(namespace, r.ID.String(), r.Created, revision),
		Status: v1alpha1.WebhookDeliveryStatus{
			State: v1alpha1.DeliveryState(query.StateOf(r, now)), Reason: string(r.Reason), Subscription: r.Subscription,
			Event:        v1alpha1.EventReference{ID: r.EventID, Type: string(r.Type), Time: metav1.MicroTime{Time: r.Created.UTC()}},
			AttemptCount: int32(r.AttemptCount), ScheduledTime: timeOf(r.Planned), ScheduledKey: key,
		},
	}
	if r.State == delivery.Pending {
		d.Status.NextAttemptTime = timeOf(r.Due)
	}
	if r.ReplayOf != (event.DeliveryID{}) {
		d.Status.ReplayOf = r.ReplayOf.String()
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		d.Status.Attempts = append(d.Status.Attempts, v1alpha1.DeliveryAttempt{
			Number: int32(a.Number), Time: metav1.MicroTime{Time: a.Started.UTC()}, Duration: metav1.Duration{Duration: a.Duration},
			Status: int32(a.StatusCode), Reason: string(a.Reason),
		})
		if a.Pulled() {
			d.Status.Attempts[i].Pulled = new(true)
		}
	}
	if n := len(r.Attempts); n > 0 {
		d.Status.LastAttemptTime = timeOf(r.Attempts[n-1].Started)
		if d.Status.Reason == "" && r.State != delivery.Delivered {
			d.Status.Reason = string(r.Attempts[n-1].Reason)
		}
	}
	return d
}

// eventOf is an event as an object.
func eventOf(e *query.Event, namespace string, revision uint64, now time.Time) v1alpha1.WebhookEvent {
	object := v1alpha1.WebhookEvent{
		TypeMeta:   metav1.TypeMeta{Kind: "WebhookEvent", APIVersion: v1alpha1.GroupVersion.String()},
		ObjectMeta: metaOf(namespace, e.ID, e.Accepted, revision),
		Status: v1alpha1.WebhookEventStatus{
			EventReference: v1alpha1.EventReference{ID: e.ID, Type: string(e.Type), Time: metav1.MicroTime{Time: e.Accepted.UTC()}},
		},
	}
	for i := range e.Matches {
		r := &e.Matches[i]
		object.Status.Matches = append(object.Status.Matches, v1alpha1.EventMatch{
			Subscription: r.Subscription, Delivery: r.ID.String(), State: v1alpha1.DeliveryState(query.StateOf(r, now)),
		})
	}
	return object
}
