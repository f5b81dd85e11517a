package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/dispatcher/routing"
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
		s.Status.Signing.Keys = s.Status.Signing.Keys[:0] // as the manager writes it, once every pod signs so
		for _, ref := range routing.SigningReferences(&s.Spec) {
			s.Status.Signing.Keys = append(s.Status.Signing.Keys, v1alpha1.SigningKey{ID: "key_" + ref.Name, Scheme: v1alpha1.SchemeShared})
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

const rotatePath = "/namespaces/clinic-a/subscriptions/billing/rotate"

// rotating is a subscription with a new key beside the current one, or after it, of which these keys sign.
func rotating(promoted bool, keys ...v1alpha1.SigningKey) *v1alpha1.WebhookSubscription {
	s := sub()
	fresh := v1alpha1.SecretKeyReference{Name: "billing-fresh", Key: "key"}
	s.Spec.Signing.NextSecretRef = &fresh
	if promoted {
		s.Spec.Signing = v1alpha1.Signing{SecretRef: fresh, PreviousSecretRef: &s.Spec.Signing.SecretRef}
	}
	s.Status.Signing.Keys = keys
	return s
}

// TestPanelGivesOutNoPrivateKey: of a pair the page has the public key, and no command that shows the private one. While the
// status does not say what the new key is, it has neither, and no step can be made.
func TestPanelGivesOutNoPrivateKey(t *testing.T) {
	t.Parallel()
	shared := v1alpha1.SigningKey{ID: "key_shared", Scheme: v1alpha1.SchemeShared}
	pair := v1alpha1.SigningKey{ID: "key_pair", Scheme: v1alpha1.SchemePair, PublicKey: "whpk_public"}
	const command, button = "get secret billing-fresh", `name="step"`
	for name, test := range map[string]struct {
		sub            *v1alpha1.WebhookSubscription
		wants, unwants []string
	}{
		"a pair, begun":          {rotating(false, shared, pair), []string{"whpk_public", "key_pair", button}, []string{"get secret"}},
		"a pair, promoted":       {rotating(true, pair, shared), []string{"whpk_public", "key_pair", button}, []string{"get secret"}},
		"a shared key, begun":    {rotating(false, pair, shared), []string{command, "key_shared", button}, []string{"whpk_public"}},
		"a shared key, promoted": {rotating(true, shared, pair), []string{command, "key_shared", button}, []string{"whpk_public"}},
		"not signing yet":        {rotating(false, shared), []string{"1 key signs, and spec.signing names 2"}, []string{"get secret", button}},
		"no status":              {rotating(true), []string{"An earlier version wrote this status"}, []string{"get secret", button}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{subs: all(test.sub)}
			handler, cookie := newServer(t, c, deliveries.None{})
			page := body(t, handler, cookie, rotatePath, http.StatusOK)
			for _, want := range test.wants {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q: %s", want, page)
				}
			}
			for _, unwant := range test.unwants {
				if strings.Contains(page, unwant) {
					t.Errorf("the page has %q: %s", unwant, page)
				}
			}
			if strings.Contains(page, button) {
				return
			}
			for _, step := range []string{"promote", "end"} {
				answer := do(handler, cookie, request(http.MethodPost, rotatePath, url.Values{"step": {step}, "version": {"7"}}))
				if answer.Code == http.StatusSeeOther || len(c.calls) > 0 || !strings.Contains(answer.Body.String(), "the step waits") {
					t.Errorf("%s did not wait: %d, %v", step, answer.Code, c.calls)
				}
			}
		})
	}
}

// TestPanelKeepsTheScheme: a pair is followed by a pair, and a key of a scheme that is not known by none.
func TestPanelKeepsTheScheme(t *testing.T) {
	t.Parallel()
	for _, scheme := range []v1alpha1.SignatureScheme{v1alpha1.SchemeShared, v1alpha1.SchemePair, ""} {
		s := sub()
		s.Status.Signing.Keys[0].Scheme = scheme
		if scheme == "" {
			s.Status.Signing.Keys = nil
		}
		c := &cluster{subs: all(s)}
		handler, cookie := newServer(t, c, deliveries.None{})
		page := body(t, handler, cookie, rotatePath, http.StatusOK)
		answer := do(handler, cookie, request(http.MethodPost, rotatePath, url.Values{"step": {"begin"}, "version": {"7"}}))
		if scheme == "" {
			const command = "eventflow keys rotate billing -n clinic-a"
			if len(c.calls) > 0 || !strings.Contains(page, command) || strings.Contains(page, `name="step"`) || !strings.Contains(answer.Body.String(), command) {
				t.Errorf("a scheme was guessed, %v: %d %s", c.calls, answer.Code, page)
			}
			continue
		}
		key, err := signature.ParseKey([]byte(strings.Join(c.values, " ")))
		if err != nil || (key.Public() != "") != (scheme == v1alpha1.SchemePair) {
			t.Errorf("%s is not followed by its like: %d %v", scheme, answer.Code, err)
		}
	}
}
