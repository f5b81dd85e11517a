package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A pair whose seed is the bytes 0 to 31, and what Python's cryptography signs with it: the message of the known answer.
const (
	pairPrivate   = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	pairWhole     = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA=="
	pairPublic    = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
	pairSignature = "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ=="
)

func mustVerify(t testing.TB, texts ...string) Keys {
	t.Helper()
	var keys Keys
	for _, text := range texts {
		key, err := ParseVerificationKey([]byte(text))
		if err != nil {
			t.Fatalf("ParseVerificationKey: %v", err)
		}
		keys = append(keys, key)
	}
	return keys
}

func TestKnownAnswerOfPairs(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]string{"seed": pairPrivate, "seed and public key": pairWhole} {
		keys := mustParse(t, private)
		if keys[0].Public() != pairPublic {
			t.Errorf("%s: the public key is %q, want %q", name, keys[0].Public(), pairPublic)
		}
		h := signed(keys, knownID, time.Unix(knownTime, 0), knownBody)
		if got := h.Values(HeaderStandard); len(got) != 1 || got[0] != pairSignature {
			t.Errorf("%s: signed %q, want %q", name, got, pairSignature)
		}
		if h.Values(HeaderBody) != nil || h.Values(HeaderBodyAlias) != nil {
			t.Errorf("%s: X-Clinik-Signature without a shared key", name)
		}
		if line := string(keys.AppendHeader(nil, knownID, time.Unix(knownTime, 0), []byte(knownBody))); strings.Contains(line, "Clinik") || !strings.Contains(line, pairSignature) {
			t.Errorf("%s: on the wire\n%s", name, line)
		}
	}
	if mustParse(t, knownKey)[0].Public() != "" {
		t.Error("a shared key has a public half")
	}
}

func TestParsePairs(t *testing.T) {
	t.Parallel()
	encode := func(prefix string, raw []byte) string { return prefix + base64.StdEncoding.EncodeToString(raw) }
	pair := ed25519.NewKeyFromSeed([]byte("a seed of exactly 32 bytes......"))
	other := append(append([]byte{}, pair[:ed25519.SeedSize]...), make([]byte, ed25519.PublicKeySize)...)
	for name, tc := range map[string]struct {
		text               string
		wantSign, wantRead string // part of the error, "" for none
	}{
		"seed":                      {encode(privatePrefix, pair[:32]), "", "the sender's alone"},
		"seed, padding left out":    {strings.TrimRight(encode(privatePrefix, pair[:32]), "="), "", "the sender's alone"},
		"seed and public key":       {encode(privatePrefix, pair), "", "the sender's alone"},
		"another's public key":      {encode(privatePrefix, other), "not the seed's", "the sender's alone"},
		"private, a byte too short": {encode(privatePrefix, pair[:31]), "31 bytes", "the sender's alone"},
		"private, 33 bytes":         {encode(privatePrefix, pair[:33]), "33 bytes", "the sender's alone"},
		"private, empty":            {privatePrefix, "0 bytes", "the sender's alone"},
		"private, no base64":        {privatePrefix + "!!!!", "whsk_ is not base64", "the sender's alone"},
		"private, upper case":       {"WHSK_" + encode("", pair[:32]), "lower case: write whsk_", "lower case: write whsk_"},
		"private, newline":          {encode(privatePrefix, pair[:32]) + "\n", "white space", "white space"},
		"public":                    {encode(publicPrefix, pair[32:]), "cannot sign", ""},
		"public, a byte too short":  {encode(publicPrefix, pair[33:]), "cannot sign", "31 bytes"},
		"public, no base64":         {publicPrefix + "!!!!", "cannot sign", "whpk_ is not base64"},
		"public, mixed case":        {"Whpk_" + encode("", pair[32:]), "lower case: write whpk_", "lower case: write whpk_"},
		"shared":                    {knownKey, "", ""},
		"raw, the prefix inside":    {"a key with whsk_ in its midst", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, result := range map[string]struct {
				parse func([]byte) (*Key, error)
				want  string
			}{"to sign": {ParseKey, tc.wantSign}, "to verify": {ParseVerificationKey, tc.wantRead}} {
				key, err := result.parse([]byte(tc.text))
				if (err == nil) != (result.want == "") || err != nil && !strings.Contains(err.Error(), result.want) {
					t.Errorf("%s: error %v, want %q", what, err, result.want)
				}
				if err != nil && strings.Contains(err.Error(), tc.text[5:min(len(tc.text), 15)]) && len(tc.text) > 15 {
					t.Errorf("%s: the error shows the key: %v", what, err)
				}
				if key != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", key, key, key), "seed") {
					t.Errorf("%s: it prints itself", what)
				}
			}
		})
	}
}

// TestSchemesBeside: receivers of both schemes find their signature in one header, whichever key is the first.
func TestSchemesBeside(t *testing.T) {
	t.Parallel()
	now := time.Unix(knownTime, 0)
	for name, keys := range map[string]Keys{
		"the shared key first": mustParse(t, knownKey, pairPrivate), "the pair first": mustParse(t, pairPrivate, knownKey),
	} {
		h := signed(keys, "dlv_1", now, "{}")
		for _, secret := range []string{knownKey, pairPublic} {
			if err := mustVerify(t, secret).VerifyStandard(h, []byte("{}"), now, Tolerance); err != nil {
				t.Errorf("%s: a receiver that has %.6s alone: %v", name, secret, err)
			}
			if err := mustVerify(t, secret).VerifyStandard(h, []byte("{} "), now, Tolerance); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: another body, by %.6s: %v", name, secret, err)
			}
		}
		if err := mustVerify(t, pairPublic, knownKey).VerifyBody(h, []byte("{}")); err != nil {
			t.Errorf("%s: X-Clinik-Signature by the shared key: %v", name, err)
		}
	}
	alone := signed(mustParse(t, pairPrivate), "dlv_1", now, "{}")
	if err := mustVerify(t, knownKey).VerifyStandard(alone, []byte("{}"), now, Tolerance); !errors.Is(err, ErrMismatch) {
		t.Errorf("a receiver that has a shared key alone takes v1a: %v", err)
	}
	// What is public must not be a key of the other scheme: anyone could sign with it.
	forged := signed(Keys{must(parseShared([]byte(pairPublic)))}, "dlv_1", now, "{}")
	if err := mustVerify(t, pairPublic).VerifyStandard(forged, []byte("{}"), now, Tolerance); !errors.Is(err, ErrMismatch) {
		t.Errorf("an HMAC by the public key's text is taken: %v", err)
	}
}

func must(key *Key, err error) *Key {
	if err != nil {
		panic(err)
	}
	return key
}

// TestAsymmetricSignaturesAreBounded: a header of many signatures does not buy as many verifications.
func TestAsymmetricSignaturesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(knownTime, 0)
	h := signed(mustParse(t, pairPrivate), "dlv_1", now, "{}")
	good := h.Get(HeaderStandard)
	wrong := asymmetricVersion + strings.Repeat("A", asymmetricLength-len(asymmetricVersion)-2) + "=="
	for before, want := range map[int]error{0: nil, MaxAsymmetric - 1: nil, MaxAsymmetric: ErrMismatch} {
		h.Set(HeaderStandard, strings.Repeat(wrong+" ", before)+good)
		if err := mustVerify(t, pairPublic).VerifyStandard(h, []byte("{}"), now, Tolerance); !errors.Is(err, want) {
			t.Errorf("%d wrong ones before it: %v, want %v", before, err, want)
		}
	}
}

// TestLargeMessages: what is put together for one message is not part of the next.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	now := time.Unix(knownTime, 0)
	for _, size := range []int{0, maxKept + 1, 10, 1 << 20, 3} {
		body := strings.Repeat("x", size)
		h := signed(mustParse(t, pairPrivate), "dlv_1", now, body)
		message := fmt.Appendf(nil, "dlv_1.%d.%s", knownTime, body)
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.Get(HeaderStandard), asymmetricVersion))
		if err != nil || !ed25519.Verify(mustVerify(t, pairPublic)[0].pair.public, message, raw) {
			t.Errorf("%d bytes: another message was signed (%v)", size, err)
		}
	}
}

// TestLargeBuffersAreNotKept: what large bodies need of memory is given back, whoever sent them.
func TestLargeBuffersAreNotKept(t *testing.T) { //nolint:paralleltest // it takes all places
	for range 2 * cap(messages) {
		signed(mustParse(t, pairPrivate), "dlv_1", time.Unix(knownTime, 0), strings.Repeat("x", maxKept+1))
	}
	var places [][]byte
	for range cap(messages) {
		places = append(places, <-messages)
	}
	for _, place := range places {
		if cap(place) > maxKept {
			t.Errorf("a buffer of %d bytes is kept", cap(place))
		}
		messages <- place
	}
}

func FuzzParseVerificationKey(f *testing.F) {
	for _, seed := range []string{"", "whpk_", pairPublic, pairPublic + "=", pairPrivate, knownKey, "WHPK_" + pairPublic[5:], " " + pairPublic} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseVerificationKey(text)
		if (err == nil) != (key != nil) {
			t.Fatalf("key %v, error %v", key, err)
		}
		if err == nil && strings.HasPrefix(string(text), privatePrefix) {
			t.Fatal("a receiver takes a private key")
		}
		const whole = len(publicPrefix) + 42 // the last character has two bits that count for nothing
		if err == nil && strings.HasPrefix(string(text), publicPrefix) && key.Public()[:whole] != string(text[:whole]) {
			t.Fatalf("%q became %q", text, key.Public())
		}
	})
}
