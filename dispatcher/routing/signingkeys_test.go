package routing

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// A pair: api/signature's known answer.
const (
	pairPrivate = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	pairWhole   = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA=="
	pairPublic  = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
)

func TestKeysInTheOrderInWhichTheySign(t *testing.T) {
	t.Parallel()
	sub := minimal()
	values := map[string][]byte{"old": []byte("the old key, with its raw bytes"), "now": []byte("the key of now, with raw bytes"), "next": []byte(pairPrivate), "public": []byte(pairPublic)}
	previous, next := reference("k", "old"), reference("k", "next")
	sub.Spec.Signing = v1alpha1.Signing{SecretRef: reference("k", "now"), PreviousSecretRef: &previous, NextSecretRef: &next}
	secrets := func(string) (map[string][]byte, bool, error) { return values, true, nil }
	entry, rejection, err := Compile(sub, Sources{Secrets: secrets}, Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	want := [][]byte{values["now"], values["old"], values["next"]}
	if !slices.EqualFunc(entry.Keys, want, slices.Equal) {
		t.Errorf("keys %q, want %q", entry.Keys, want)
	}
	next.Key = "old" // as the previous one
	if entry, _, _ = Compile(sub, Sources{Secrets: secrets}, Policy{Catalog: catalog(t)}); len(entry.Keys) != 2 {
		t.Errorf("%d keys, want each once", len(entry.Keys))
	}
	next.Key = "public"
	if _, rejection, _ = Compile(sub, Sources{Secrets: secrets}, Policy{Catalog: catalog(t)}); rejection == nil || rejection.Reason != v1alpha1.ReasonSecretKeyInvalid || !strings.Contains(rejection.Message, "spec.signing.nextSecretRef") {
		t.Errorf("a public key as the next one: %v", rejection)
	}
}

// TestSigningKeysHelpNoGuesser: the id of a shared key follows from the key and a salt that nobody sees, and that of a pair from its
// public key. A key keeps its id while its subscription is in the table, also through a time without its Secret.
func TestSigningKeysHelpNoGuesser(t *testing.T) {
	t.Parallel()
	entryOf := func(identity string, keys ...string) *Entry {
		e := &Entry{Identity: identity}
		for _, key := range keys {
			e.Keys = append(e.Keys, []byte(key))
		}
		return e
	}
	const phrase = "correct horse battery staple"
	first := entryOf("a", phrase, pairPrivate, pairWhole)
	if first.SigningKeys() != nil {
		t.Error("ids without a salt")
	}
	first.Salt(nil)
	shown := first.SigningKeys()
	if len(shown) != 2 || shown[0].Scheme != v1alpha1.SchemeShared || shown[0].PublicKey != "" || shown[1].Scheme != v1alpha1.SchemePair || shown[1].PublicKey != pairPublic || shown[1].ID != PublicKeyID(pairPublic) {
		t.Fatalf("shown are %+v, want the shared key and the pair, each once", shown)
	}
	text, err := json.Marshal(shown)
	if err != nil || strings.Contains(string(text), "horse") || strings.Contains(string(text), pairPrivate[5:20]) {
		t.Errorf("the status shows %s (%v)", text, err)
	}

	other := entryOf("b", phrase)
	other.Salt(nil)
	if other.SigningKeys()[0].ID == shown[0].ID {
		t.Error("the same key has the same id in two subscriptions: whoever has one could try guesses for the other")
	}
	successor := entryOf("c", phrase)
	successor.Salt(first)
	if successor.SigningKeys()[0].ID == shown[0].ID {
		t.Error("a subscription has the salt of another")
	}

	held := Hold(first, 2, "SecretNotFound")
	if held.SigningKeys() != nil {
		t.Error("keys sign although deliveries wait")
	}
	again := entryOf("a", "another phrase of a person", phrase)
	again.Salt(held)
	if got := again.SigningKeys(); len(got) != 2 || got[1].ID != shown[0].ID || got[0].ID == shown[0].ID {
		t.Errorf("after it was held: %+v, the key had the id %s", got, shown[0].ID)
	}
	if key, err := signature.ParseKey([]byte(pairWhole)); err != nil || key.Public() != pairPublic {
		t.Errorf("the pair: %v", err)
	}
}
