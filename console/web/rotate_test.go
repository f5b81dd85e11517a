package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
)

// TestRotationByThePanel: the steps are those of "eventflow keys rotate". A new key never becomes the current one, and the old one
// never ends, in the step that makes a key.
func TestRotationByThePanel(t *testing.T) {
	t.Parallel()
	s := sub()
	c := &cluster{subs: all(s)}
	handler, cookie := newServer(t, c, deliveries.None{})
	step := func(name string) v1alpha1.Signing {
		t.Helper()
		answer := do(handler, cookie, request(http.MethodPost, "/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {name}, "version": {"7"}}))
		if answer.Code != http.StatusSeeOther {
			t.Fatalf("%s: %d %.500s", name, answer.Code, answer.Body)
		}
		var patch struct {
			Spec struct {
				Signing map[string]*v1alpha1.SecretKeyReference
			}
		}
		if err := json.Unmarshal([]byte(c.patches[len(c.patches)-1]), &patch); err != nil {
			t.Fatal(err)
		}
		for field, ref := range patch.Spec.Signing { // as the API server merges it
			switch field {
			case "secretRef":
				s.Spec.Signing.SecretRef = *ref
			case "previousSecretRef":
				s.Spec.Signing.PreviousSecretRef = ref
			case "nextSecretRef":
				s.Spec.Signing.NextSecretRef = ref
			}
		}
		return s.Spec.Signing
	}
	const old = "billing-key"
	begun := step("begin")
	if begun.SecretRef.Name != old || begun.PreviousSecretRef != nil || begun.NextSecretRef == nil || !strings.HasPrefix(begun.NextSecretRef.Name, "billing-key-") {
		t.Fatalf("begun: %+v", begun)
	}
	fresh := begun.NextSecretRef.Name
	if got := step("promote"); got.SecretRef.Name != fresh || got.PreviousSecretRef == nil || got.PreviousSecretRef.Name != old || got.NextSecretRef != nil {
		t.Fatalf("promoted: %+v", got)
	}
	if got := step("end"); got.SecretRef.Name != fresh || got.PreviousSecretRef != nil || got.NextSecretRef != nil {
		t.Fatalf("ended: %+v", got)
	}
}
