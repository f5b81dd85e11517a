package subscription

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// pinned is what the subscription of TestCompilationIsPinned was compiled to by the present compilation.
const pinned = "2:25820ac6cdc9ed8a"

// TestCompilationIsPinned: a manager keeps an entry that an earlier one compiled from the same sources. One that would compile
// it otherwise must not. If this test fails, raise compilation, and pin the new hash.
func TestCompilationIsPinned(t *testing.T) {
	t.Parallel()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	attempts := int32(3)
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: "clinic", Name: "hook", UID: "6e2d6a06-5a3b-4f0e-9a11-000000000001", Generation: 4},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL:    "https://hooks.example.com/in",
			Events: []string{"patient.*", "lab.created"},
			Headers: []v1alpha1.Header{
				{Name: "x-team", Value: "billing"},
				{Name: "authorization", ValueFrom: &v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "key", Key: "token"}}},
			},
			Signing: v1alpha1.Signing{
				SecretRef:         v1alpha1.SecretKeyReference{Name: "key", Key: "current"},
				PreviousSecretRef: &v1alpha1.SecretKeyReference{Name: "key", Key: "previous"},
			},
			Timeout:  metav1.Duration{Duration: 5 * time.Second},
			Retry:    v1alpha1.Retry{MaxAttempts: &attempts},
			Delivery: v1alpha1.Delivery{MaxInFlight: 7},
		},
	}
	values := map[string][]byte{
		"token": []byte("Bearer abc"), "current": []byte("0123456789abcdef01234567"), "previous": []byte("76543210fedcba9876543210"),
	}
	entry, rejection, err := routing.Compile(sub, routing.Sources{
		Secrets: func(string) (map[string][]byte, bool, error) { return values, true, nil },
	}, routing.Policy{Catalog: catalog})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	text, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if got := compilation + ":" + hex.EncodeToString(sum[:8]); got != pinned {
		t.Errorf("compiled to %s, pinned is %s: %s", got, pinned, text)
	}
}
