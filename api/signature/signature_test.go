package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The known answer of docs/wire.md, which is the one of the Standard Webhooks libraries.
const (
	knownKey       = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	knownID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	knownTime      = 1614265330
	knownBody      = `{"test": 2432232314}`
	knownSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

	newKey   = "the new key, with its raw bytes"
	oldKey   = "the old key, with its raw bytes"
	otherKey = "another key, with its raw bytes"
)

func mustParse(t testing.TB, texts ...string) Keys {
	t.Helper()
	var keys Keys
	for _, text := range texts {
		key, err := ParseKey([]byte(text))
		if err != nil {
			t.Fatalf("ParseKey: %v", err)
		}
		keys = append(keys, key)
	}
	return keys
}

// signed returns the headers as a receiver's net/http hands them over.
func signed(keys Keys, id string, at time.Time, body string) http.Header {
	sent, received := http.Header{}, http.Header{}
	keys.Header(sent, id, at, []byte(body))
	for name, values := range sent {
		received[http.CanonicalHeaderKey(name)] = values
	}
	return received
}

func TestKnownAnswer(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	mustParse(t, knownKey).Header(h, knownID, time.Unix(knownTime, 0), []byte(knownBody))

	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(knownBody))
	wantBody := hex.EncodeToString(mac.Sum(nil))
	var wire bytes.Buffer
	if err := h.Write(&wire); err != nil {
		t.Fatal(err)
	}
	want := "X-Clinik-Signature: " + wantBody + "\r\n" +
		"X-ClinikAPI-Signature: " + wantBody + "\r\n" +
		"webhook-id: " + knownID + "\r\n" +
		"webhook-signature: " + knownSignature + "\r\n" +
		"webhook-timestamp: 1614265330\r\n"
	if wire.String() != want {
		t.Errorf("headers are\n%swant\n%s", wire.String(), want)
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	const text24, binary = "twenty-five bytes exactly", "\x00\xff\n bytes that are no text \x80"
	encode := func(key string) string { return standardPrefix + base64.StdEncoding.EncodeToString([]byte(key)) }
	unpadded := func(key string) string { return strings.TrimRight(encode(key), "=") }
	long := strings.Repeat("k", MaxKeyBytes)
	for name, tc := range map[string]struct {
		text    string
		wantKey string
		want    string // part of the error
	}{
		"raw":                          {text: text24, wantKey: text24},
		"raw, of the least length":     {text: text24[:MinKeyBytes], wantKey: text24[:MinKeyBytes]},
		"raw, not text":                {text: binary, wantKey: binary},
		"raw, prefix inside":           {text: "my-whsec_" + text24, wantKey: "my-whsec_" + text24},
		"raw, of the greatest length":  {text: long, wantKey: long},
		"base64, no padding needed":    {text: encode(text24[:24]), wantKey: text24[:24]},
		"base64, padded":               {text: encode(text24), wantKey: text24},
		"base64, padding left out":     {text: unpadded(text24), wantKey: text24},
		"base64, one pad":              {text: encode(text24 + "x"), wantKey: text24 + "x"},
		"base64, one pad left out":     {text: unpadded(text24 + "x"), wantKey: text24 + "x"},
		"base64, + and /":              {text: standardPrefix + strings.Repeat("+/+/", 8), wantKey: strings.Repeat("\xfb\xff\xbf", 8)},
		"base64, the greatest length":  {text: encode(long), wantKey: long},
		"empty":                        {text: "", want: "too short: 0 bytes"},
		"one byte":                     {text: "x", want: "too short: 1 bytes"},
		"raw, a byte too short":        {text: text24[:MinKeyBytes-1], want: "too short"},
		"raw, a byte too long":         {text: long + "k", want: "too long"},
		"base64, empty":                {text: "whsec_", want: "too short"},
		"base64, a byte too short":     {text: encode(text24[:MinKeyBytes-1]), want: "too short: 23 bytes"},
		"base64, a byte too long":      {text: encode(long + "k"), want: "too long"},
		"base64, only padding":         {text: "whsec_==", want: "not base64"},
		"base64, half padded":          {text: strings.TrimSuffix(encode(text24), "="), want: "not base64"},
		"base64, too much padding":     {text: encode(text24) + "=", want: "not base64"},
		"base64, cut":                  {text: unpadded(text24[:24]) + "A", want: "not base64"},
		"base64, URL alphabet":         {text: standardPrefix + strings.Repeat("-_-_", 8), want: "not base64"},
		"base64, blank inside":         {text: "whsec_c2Vj " + unpadded(text24)[6:], want: "not base64"},
		"base64, line break inside":    {text: "whsec_c2Vj\n" + unpadded(text24)[6:], want: "a line feed (U+000A) inside"},
		"newline behind":               {text: text24 + "\n", want: "white space"},
		"base64, newline behind":       {text: encode(text24) + "\n", want: "white space"},
		"base64, carriage return":      {text: encode(text24) + "\r\n", want: "white space"},
		"only a newline":               {text: "\n", want: "white space"},
		"blank before":                 {text: " " + encode(text24), want: "white space"},
		"tab behind":                   {text: text24 + "\t", want: "white space"},
		"byte order mark":              {text: "\ufeff" + encode(text24), want: "byte order mark"},
		"no-break space behind":        {text: text24 + "\u00a0", want: "a no-break space (U+00A0) at its end"},
		"no-break space inside":        {text: text24[:9] + "\u00a0" + text24[9:], want: "a no-break space (U+00A0) inside"},
		"zero width space before":      {text: "\u200b" + encode(text24), want: "a zero width space (U+200B) at its beginning"},
		"zero width space inside":      {text: text24[:9] + "\u200b" + text24[9:], want: "a zero width space (U+200B) inside"},
		"byte order mark behind":       {text: text24 + "\ufeff", want: "a byte order mark (U+FEFF) at its end"},
		"NUL behind":                   {text: text24 + "\x00", want: "a NUL character (U+0000) at its end"},
		"NUL inside":                   {text: text24[:9] + "\x00" + text24[9:], want: "a NUL character (U+0000) inside"},
		"line break inside":            {text: text24[:9] + "\n" + text24[9:], want: "a line feed (U+000A) inside"},
		"base64, zero width space":     {text: standardPrefix + "\u200b" + encode(text24)[6:], want: "a zero width space (U+200B) inside"},
		"UTF-16":                       {text: "\xff\xfe" + strings.Join(strings.Split(text24, ""), "\x00") + "\x00", want: "byte order mark of UTF-16"},
		"odd bytes in base64":          {text: encode("\x00\u00a0\u200b\ufeff" + text24), wantKey: "\x00\u00a0\u200b\ufeff" + text24},
		"a signature's version before": {text: "v1," + encode(text24), want: "v1,whsec_"},
		"prefix in upper case":         {text: "WHSEC_" + encode(text24)[6:], want: "lower case"},
		"prefix in mixed case":         {text: "Whsec_" + encode(text24)[6:], want: "lower case"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := []byte(tc.text)
			key, err := ParseKey(text)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("error %v, want one that says %q", err, tc.want)
				}
				if secret := strings.TrimSpace(strings.TrimPrefix(tc.text, standardPrefix)); len(secret) > 8 && strings.Contains(err.Error(), secret[:8]) && !strings.HasPrefix(secret, "v1,whsec_") {
					t.Errorf("the error shows the key: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("error %v", err)
			}
			clear(text) // a key must not live in the caller's bytes
			mac := hmac.New(sha256.New, []byte(tc.wantKey))
			mac.Write([]byte("body"))
			for range 2 { // the second sum is of a pooled hash
				if got := key.sum(nil, []byte("bo"), []byte("dy")); !bytes.Equal(got, mac.Sum(nil)) {
					t.Fatalf("sum is %x, want that of key %q", got, tc.wantKey)
				}
			}
		})
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	keys := mustParse(t, "canary-key-of-24-bytes-and-more")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, keys) + fmt.Sprintf(format, keys[0]); strings.Contains(text, "canary") {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func TestEveryKeySigns(t *testing.T) {
	t.Parallel()
	now := time.Unix(knownTime, 0)
	h := signed(mustParse(t, newKey, oldKey), "dlv_1", now, "{}")
	if got := len(strings.Fields(h.Get(HeaderStandard))); got != 2 {
		t.Fatalf("%d signatures, want 2", got)
	}
	for _, text := range []string{newKey, oldKey} {
		if err := mustParse(t, text).VerifyStandard(h, []byte("{}"), now, Tolerance); err != nil {
			t.Errorf("a receiver that has the key %q alone: %v", text, err)
		}
	}
	first := signed(mustParse(t, newKey), "dlv_1", now, "{}").Get(HeaderStandard)
	if !strings.HasPrefix(h.Get(HeaderStandard), first+" ") {
		t.Error("the current key's signature is not the first")
	}
	if err := mustParse(t, newKey).VerifyBody(h, []byte("{}")); err != nil {
		t.Errorf("X-Clinik-Signature by the current key: %v", err)
	}
	if err := mustParse(t, oldKey).VerifyBody(h, []byte("{}")); !errors.Is(err, ErrMismatch) {
		t.Errorf("X-Clinik-Signature by the previous key: %v, want %v", err, ErrMismatch)
	}
}

func TestVerifyStandard(t *testing.T) {
	t.Parallel()
	sent := time.Unix(knownTime, 0)
	for name, tc := range map[string]struct {
		change func(http.Header)
		body   string
		now    time.Time
		keys   []string
		want   error
	}{
		"good":                    {},
		"5 minutes late":          {now: sent.Add(Tolerance)},
		"5 minutes early":         {now: sent.Add(-Tolerance)},
		"too late":                {now: sent.Add(Tolerance + time.Second), want: ErrExpired},
		"too early":               {now: sent.Add(-Tolerance - time.Second), want: ErrExpired},
		"other body":              {body: "{} ", want: ErrMismatch},
		"other key":               {keys: []string{otherKey}, want: ErrMismatch},
		"one of two keys":         {keys: []string{otherKey, knownKey}},
		"no keys":                 {keys: []string{}, want: ErrMismatch},
		"no id":                   {change: func(h http.Header) { h.Del(HeaderID) }, want: ErrMissing},
		"no time":                 {change: func(h http.Header) { h.Del(HeaderTimestamp) }, want: ErrMissing},
		"no signature":            {change: func(h http.Header) { h.Del(HeaderStandard) }, want: ErrMissing},
		"other id":                {change: func(h http.Header) { h.Set(HeaderID, "dlv_2") }, want: ErrMismatch},
		"id with a dot":           {change: func(h http.Header) { h.Set(HeaderID, "dlv.1") }, want: ErrMalformed},
		"other time":              {change: func(h http.Header) { h.Set(HeaderTimestamp, "1614265331") }, want: ErrMismatch},
		"same time, other text":   {change: func(h http.Header) { h.Set(HeaderTimestamp, "+1614265330") }, want: ErrMismatch},
		"time is no number":       {change: func(h http.Header) { h.Set(HeaderTimestamp, "now") }, want: ErrMalformed},
		"time beyond any":         {change: func(h http.Header) { h.Set(HeaderTimestamp, "9223372036854775807") }, want: ErrExpired},
		"time before any":         {change: func(h http.Header) { h.Set(HeaderTimestamp, "-9223372036854775808") }, want: ErrExpired},
		"blank signature":         {change: func(h http.Header) { h.Set(HeaderStandard, "  ") }, want: ErrMismatch},
		"other versions beside":   {change: func(h http.Header) { h.Set(HeaderStandard, "v1a,xyz "+h.Get(HeaderStandard)+" v2,abc") }},
		"only another version":    {change: func(h http.Header) { h.Set(HeaderStandard, "v2"+h.Get(HeaderStandard)[2:]) }, want: ErrMismatch},
		"signature without pads":  {change: func(h http.Header) { h.Set(HeaderStandard, strings.TrimRight(h.Get(HeaderStandard), "=")) }, want: ErrMismatch},
		"signature cut to prefix": {change: func(h http.Header) { h.Set(HeaderStandard, "v1,") }, want: ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := signed(mustParse(t, knownKey), "dlv_1", sent, "{}")
			if tc.change != nil {
				tc.change(h)
			}
			if tc.body == "" {
				tc.body = "{}"
			}
			if tc.now.IsZero() {
				tc.now = sent
			}
			if tc.keys == nil {
				tc.keys = []string{knownKey}
			}
			if err := mustParse(t, tc.keys...).VerifyStandard(h, []byte(tc.body), tc.now, Tolerance); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestVerifyBody(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(http.Header)
		body   string
		keys   []string
		want   error
	}{
		"good":            {},
		"by the alias":    {change: func(h http.Header) { h.Del(HeaderBody) }},
		"one of two keys": {keys: []string{otherKey, knownKey}},
		"no keys":         {keys: []string{}, want: ErrMismatch},
		"other key":       {keys: []string{otherKey}, want: ErrMismatch},
		"other body":      {body: "{}\n", want: ErrMismatch},
		"none":            {change: func(h http.Header) { h.Del(HeaderBody); h.Del(HeaderBodyAlias) }, want: ErrMissing},
		"cut":             {change: func(h http.Header) { h.Set(HeaderBody, h.Get(HeaderBody)[:63]) }, want: ErrMalformed},
		"a wrong one beats the alias": {
			change: func(h http.Header) { h.Set(HeaderBody, strings.Repeat("0", 64)) }, want: ErrMismatch,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := signed(mustParse(t, knownKey), "dlv_1", time.Unix(knownTime, 0), "{}")
			if tc.change != nil {
				tc.change(h)
			}
			if tc.body == "" {
				tc.body = "{}"
			}
			if tc.keys == nil {
				tc.keys = []string{knownKey}
			}
			if err := mustParse(t, tc.keys...).VerifyBody(h, []byte(tc.body)); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"", "x", knownKey, "whsec_", "whsec_c2VjcmV0cw==", "whsec_a\n=", "whsec_\xff", " " + knownKey, knownKey + "\n", "\ufeff" + knownKey, "v1," + knownKey, "WHSEC_" + knownKey[6:], strings.Repeat("k", 513)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseKey(text)
		encoded, standard := bytes.CutPrefix(text, []byte(standardPrefix))
		if err != nil {
			if key != nil {
				t.Fatalf("refused with a key: %v", err)
			}
			return
		}
		if len(bytes.TrimSpace(text)) != len(text) && !bytes.ContainsAny(text, "\u0085\u00a0") {
			t.Fatal("accepted with white space around it")
		}
		raw := text
		if standard {
			raw, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(string(encoded), "="))
			if err != nil {
				t.Fatalf("accepted what is not base64: %v", err)
			}
		}
		if len(raw) < MinKeyBytes || len(raw) > MaxKeyBytes {
			t.Fatalf("accepted a key of %d bytes", len(raw))
		}
		mac := hmac.New(sha256.New, raw)
		mac.Write([]byte("body"))
		if !bytes.Equal(key.sum(nil, []byte("body")), mac.Sum(nil)) {
			t.Fatal("signs with other bytes than those of the text")
		}
	})
}

func FuzzVerify(f *testing.F) {
	keys := mustParse(f, knownKey)
	sent := time.Unix(knownTime, 0)
	good := signed(keys, "dlv_1", sent, "{}")
	f.Add("dlv_1", "1614265330", good.Get(HeaderStandard), good.Get(HeaderBody), []byte("{}"))
	f.Add("", "x", "v1,", "00", []byte(nil))
	f.Fuzz(func(t *testing.T, id, timestamp, standard, hexBody string, body []byte) {
		h := http.Header{}
		h.Set(HeaderID, id)
		h.Set(HeaderTimestamp, timestamp)
		h.Set(HeaderStandard, standard)
		h.Set(HeaderBody, hexBody)
		want := signed(keys, id, sent, string(body))
		if err := keys.VerifyStandard(h, body, sent, 0); err == nil {
			if timestamp != "1614265330" || !strings.Contains(standard, want.Get(HeaderStandard)) {
				t.Fatal("accepted a signature that no key made")
			}
		}
		if err := keys.VerifyBody(h, body); (err == nil) != (hexBody == want.Get(HeaderBody)) {
			t.Fatalf("hex %q of %q: %v", hexBody, body, err)
		}
	})
}

func BenchmarkHeader(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	at := time.Unix(knownTime, 0)
	for name, keys := range map[string]Keys{
		"1 key": mustParse(b, knownKey), "2 keys": mustParse(b, knownKey, oldKey),
		"1 pair": mustParse(b, pairPrivate), "a key and a pair": mustParse(b, knownKey, pairPrivate),
	} {
		b.Run(name, func(b *testing.B) {
			h := http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				keys.Header(h, "dlv_000000000000000000000000000000000000000", at, body)
			}
		})
	}
}

func BenchmarkVerifyStandard(b *testing.B) {
	body := strings.Repeat("x", 1024)
	at := time.Unix(knownTime, 0)
	raw := []byte(body)
	for name, keys := range map[string][2]Keys{
		"a key": {mustParse(b, knownKey), mustParse(b, knownKey)}, "a pair": {mustParse(b, pairPrivate), mustVerify(b, pairPublic)},
	} {
		b.Run(name, func(b *testing.B) {
			h := signed(keys[0], "dlv_1", at, body)
			b.ReportAllocs()
			for b.Loop() {
				if err := keys[1].VerifyStandard(h, raw, at, Tolerance); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
