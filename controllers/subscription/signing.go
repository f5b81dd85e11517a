package subscription

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
)

// signing is what the status says of the keys that sign. What it said stands until the dispatcher has taken the keys over, and
// where it does not say how far it is. So the keys come with the one write that says Programmed, or with one of their own when a
// Secret alone changed. A key that signed before keeps its time.
func signing(sub *v1alpha1.WebhookSubscription, v verdict, d *v1alpha1.WebhookDispatcher, t routes.Takeover, now time.Time) v1alpha1.SigningStatus {
	said := sub.Status.Signing
	switch {
	case d == nil:
		return v1alpha1.SigningStatus{}
	case t.Values || d.Status.ProgrammedRevision == 0:
		return said
	case v.rejection != nil:
		return v1alpha1.SigningStatus{}
	case len(v.keys) == 0: // an earlier manager made the entry
		return said
	}
	keys := slices.Clone(v.keys)
	for i := range keys {
		keys[i].SinceTime = metav1.NewTime(now.UTC().Truncate(time.Second))
		for _, before := range said.Keys {
			if before.ID == keys[i].ID {
				keys[i].SinceTime = before.SinceTime
			}
		}
	}
	return v1alpha1.SigningStatus{Keys: keys}
}

func sameSigning(a, b v1alpha1.SigningStatus) bool {
	return slices.EqualFunc(a.Keys, b.Keys, func(a, b v1alpha1.SigningKey) bool {
		return a.ID == b.ID && a.Scheme == b.Scheme && a.PublicKey == b.PublicKey && a.SinceTime.Equal(&b.SinceTime)
	})
}
