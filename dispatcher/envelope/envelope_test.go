package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
)

// hexBytes are written as hexadecimal text.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vector is one of testdata/vectors.json, which testdata/vectors.py made: another implementation, in another language, on
// another library.
type vector struct {
	Seed, Salt, KEK, Plain, Value, Sealed, Wrapped, File, BlindKey, BlindDigest, BlindOrder hexBytes

	KeyID                                string
	Mark                                 byte
	Tenant, Event, Type, Store, SealedID string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil || len(all) < 4 {
		t.Fatalf("%d vectors, %v", len(all), err)
	}
	return all
}

func seedOf(b []byte) Seed {
	return Seed{(*[keyLength]byte)(bytes.Clone(b))}
}

func sealer(t testing.TB, seed Seed, tenant, store string) *Sealer {
	t.Helper()
	s, err := New(seed, tenant, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func freshSeed(t testing.TB) Seed {
	t.Helper()
	seed, err := NewSeed(nil)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// TestVectors: both implementations write the same bytes, and this one reads them.
func TestVectors(t *testing.T) {
	t.Parallel()
	for i, v := range vectors(t) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s, err := New(seedOf(v.Seed), v.Tenant, v.Store, bytes.NewReader(v.Salt))
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := s.Seal([]byte("before"), v.Event, v.Type, v.Plain)
			if err != nil || !bytes.Equal(sealed, append([]byte("before"), v.Sealed...)) {
				t.Errorf("sealed %x, %v; want %x", sealed, err, v.Sealed)
			}
			if got, err := s.Open(nil, v.Event, v.Type, v.Sealed); err != nil || !bytes.Equal(got, v.Plain) {
				t.Errorf("opened %x, %v; want %x", got, err, v.Plain)
			}
			if got := s.SealID(v.Event); got != v.SealedID {
				t.Errorf("the id is %s, want %s", got, v.SealedID)
			}
			if got, err := s.OpenID(v.SealedID); err != nil || got != v.Event {
				t.Errorf("the id opens as %q, %v; want %q", got, err, v.Event)
			}
			for use, want := range map[Use][]byte{UseKey: v.BlindKey, UseDigest: v.BlindDigest, UseOrder: v.BlindOrder} {
				if got := s.Blind(use, v.Value); !bytes.Equal(got[:], want) {
					t.Errorf("blind %c is %x, want %x", use, got, want)
				}
			}
			checkWrapped(t, &v)
		})
	}
}

func checkWrapped(t *testing.T, v *vector) {
	t.Helper()
	ring, err := NewKeyRing(v.KeyID, map[string][]byte{v.KeyID: v.KEK}, bytes.NewReader(append(bytes.Clone(v.Salt), v.Salt...)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ring.Wrap(v.Tenant, seedOf(v.Seed), v.Mark); err != nil || !bytes.Equal(got, v.Wrapped) {
		t.Errorf("wrapped %x, %v; want %x", got, err, v.Wrapped)
	}
	if seed, mark, key, err := ring.Unwrap(v.Tenant, v.Wrapped); err != nil || !seed.Equal(seedOf(v.Seed)) || mark != v.Mark || key != v.KeyID {
		t.Errorf("unwrapped mark %d, key %s, %v", mark, key, err)
	}
	if got, err := ring.SealFile("index", v.Plain); err != nil || !bytes.Equal(got, v.File) {
		t.Errorf("the file is %x, %v; want %x", got, err, v.File)
	}
	if got, err := ring.OpenFile("index", v.File); err != nil || !bytes.Equal(got, v.Plain) {
		t.Errorf("the file opens as %x, %v; want %x", got, err, v.Plain)
	}
}

// TestMisuse: a record opens for what it was sealed for, and for nothing else.
func TestMisuse(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	s := sealer(t, seed, "clinic-a", "store-1")
	sealed, err := s.Seal(nil, "evt-1", "patient.created", []byte("diagnosis"))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(i int, to byte) []byte {
		b := bytes.Clone(sealed)
		b[(i+len(b))%len(b)] ^= to
		return b
	}
	for name, tc := range map[string]struct {
		by          *Sealer
		event, kind string
		sealed      []byte
		want        error
	}{
		"as it was sealed":            {s, "evt-1", "patient.created", sealed, nil},
		"another tenant's seed":       {sealer(t, freshSeed(t), "clinic-b", "store-1"), "evt-1", "patient.created", sealed, ErrOtherSeed},
		"another tenant, same seed":   {sealer(t, seed, "clinic-b", "store-1"), "evt-1", "patient.created", sealed, ErrDamaged},
		"replayed in another store":   {sealer(t, seed, "clinic-a", "store-2"), "evt-1", "patient.created", sealed, ErrDamaged},
		"parts that move":             {sealer(t, seed, "clinic-", "store-1"), "aevt-1", "patient.created", sealed, ErrDamaged},
		"another event":               {s, "evt-2", "patient.created", sealed, ErrDamaged},
		"another type":                {s, "evt-1", "patient.deleted", sealed, ErrDamaged},
		"truncated by one":            {s, "evt-1", "patient.created", sealed[:len(sealed)-1], ErrDamaged},
		"truncated to nothing":        {s, "evt-1", "patient.created", nil, ErrDamaged},
		"truncated to its frame":      {s, "evt-1", "patient.created", sealed[:Overhead], ErrDamaged},
		"longer":                      {s, "evt-1", "patient.created", append(bytes.Clone(sealed), 0), ErrDamaged},
		"a newer version":             {s, "evt-1", "patient.created", changed(0, 3), ErrNewer},
		"another suite":               {s, "evt-1", "patient.created", changed(1, 3), ErrNewer},
		"a seed that was deleted":     {s, "evt-1", "patient.created", changed(2, 1), ErrOtherSeed},
		"another salt":                {s, "evt-1", "patient.created", changed(headerLength, 1), ErrDamaged},
		"a changed ciphertext":        {s, "evt-1", "patient.created", changed(Prefix, 1), ErrDamaged},
		"a changed tag":               {s, "evt-1", "patient.created", changed(-1, 0x80), ErrDamaged},
		"a plain record in its place": {s, "evt-1", "patient.created", []byte(strings.Repeat(`{"id":"evt-1"}`, 9)), ErrNewer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tc.by.Open([]byte("x"), tc.event, tc.kind, tc.sealed)
			if !errors.Is(err, tc.want) || tc.want == nil && string(got) != "xdiagnosis" || tc.want != nil && string(got) != "x" {
				t.Errorf("opened %q, %v; want error %v", got, err, tc.want)
			}
		})
	}
}

// TestMisuseOfIDs: an id opens for its tenant and store only, and not once it was changed.
func TestMisuseOfIDs(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	s := sealer(t, seed, "clinic-a", "store-1")
	sealed := s.SealID("mrn-12345678")
	flipped := sealed[:len(sealed)-3] + string(sealed[len(sealed)-3]^1) + sealed[len(sealed)-2:]
	for name, open := range map[string]func() (string, error){
		"another seed":  func() (string, error) { return sealer(t, freshSeed(t), "clinic-a", "store-1").OpenID(sealed) },
		"another store": func() (string, error) { return sealer(t, seed, "clinic-a", "store-2").OpenID(sealed) },
		"other tenant":  func() (string, error) { return sealer(t, seed, "clinic-b", "store-1").OpenID(sealed) },
		"changed":       func() (string, error) { return s.OpenID(flipped) },
		"truncated":     func() (string, error) { return s.OpenID(sealed[:len(sealed)-2]) },
		"short":         func() (string, error) { return s.OpenID(sealed[:9]) },
		"unmarked":      func() (string, error) { return s.OpenID(sealed[1:]) },
		"empty":         func() (string, error) { return s.OpenID("") },
	} {
		if id, err := open(); !errors.Is(err, ErrDamaged) || id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
	if strings.Contains(sealed, "12345678") || s.SealID("mrn-12345678") != sealed || s.SealID("mrn-12345679") == sealed {
		t.Errorf("sealed as %s", sealed)
	}
}

// TestRestoredSnapshot: a store and its sealers that go back to an older state repeat nothing. Whoever has both
// continuations sees other salts and other ciphertexts for the same events.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	seen := map[string]bool{}
	for restore := range 3 {
		s := sealer(t, seed, "clinic-a", "store-1") // all its state is the seed: there is no counter to restore
		for range 1000 {
			sealed, err := s.Seal(nil, "evt-1", "patient.created", []byte("same"))
			if err != nil {
				t.Fatal(err)
			}
			salt := string(sealed[headerLength:Prefix])
			if seen[salt] || seen[string(sealed[Prefix:])] {
				t.Fatalf("after restore %d: a salt or a ciphertext came again", restore)
			}
			seen[salt], seen[string(sealed[Prefix:])] = true, true
		}
	}
}

// TestArithmeticOfManyRecords: what random salts are good for, by the birthday bound n²/2^(bits+1).
func TestArithmeticOfManyRecords(t *testing.T) {
	t.Parallel()
	collision := func(records, bits float64) float64 { return 2*records - bits - 1 } // logarithms to base 2
	for _, tc := range []struct {
		what          string
		records, bits float64
		want          float64
	}{
		{"2^32 records of a tenant, salts of 32 bytes", 32, 8 * saltLength, -193},
		{"a trillion records", 40, 8 * saltLength, -177},
		// What NIST SP 800-38D allows random 96-bit nonces under one key, and why the key is not the seed itself.
		{"2^32 records under one key, random nonces", 32, 96, -33},
	} {
		if got := collision(tc.records, tc.bits); got != tc.want {
			t.Errorf("%s: 2^%v, want 2^%v", tc.what, got, tc.want)
		}
	}
	// Each key encrypts one record: at most 8 MiB are 2^19 blocks, of the 2^32-2 that GCM allows.
	if blocks := math.Log2(8 << 20 / 16); blocks >= 32 {
		t.Errorf("a record has 2^%v blocks", blocks)
	}
}

// TestInPlace: decrypting over the record, and encrypting over the plain bytes, need no second copy.
func TestInPlace(t *testing.T) {
	t.Parallel()
	s := sealer(t, freshSeed(t), "clinic-a", "store-1")
	b := make([]byte, Prefix, Prefix+5+tagLength)
	b = append(b, "hello"...)
	sealed, err := s.Seal(b[:0], "e", "t", b[Prefix:])
	if err != nil || &sealed[0] != &b[:1][0] {
		t.Fatalf("sealed elsewhere, %v", err)
	}
	plain, err := s.Open(sealed[Prefix:Prefix], "e", "t", sealed)
	if err != nil || string(plain) != "hello" || &plain[0] != &sealed[Prefix] {
		t.Fatalf("opened %q, %v", plain, err)
	}
}

// TestConcurrentUse: a Sealer is shared by all requests of a tenant.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := sealer(t, freshSeed(t), "clinic-a", "store-1")
	wantID, wantKey := s.SealID("id"), s.Blind(UseKey, []byte("k"))
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 100 {
				text := fmt.Sprint(i, n)
				sealed, err := s.Seal(nil, text, "t", []byte(text))
				if err != nil {
					t.Error(err)
				}
				if got, err := s.Open(nil, text, "t", sealed); err != nil || string(got) != text {
					t.Errorf("opened %q, %v", got, err)
				}
				if s.SealID("id") != wantID || s.Blind(UseKey, []byte("k")) != wantKey {
					t.Error("ids or keys differ")
				}
			}
		})
	}
	wait.Wait()
}

// TestNothingIsShown: a seed that ends up in a log or an error shows nothing.
func TestNothingIsShown(t *testing.T) {
	t.Parallel()
	seed := seedOf(bytes.Repeat([]byte("S"), keyLength))
	ring, err := NewKeyRing("k", map[string][]byte{"k": bytes.Repeat([]byte("K"), keyLength)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", seed, seed, seed, seed), fmt.Sprintf("%v", ring), fmt.Sprintf("%+v %#v", *ring, ring)} {
		if strings.Contains(text, "SSSS") || strings.Contains(text, "83 83") || strings.Contains(text, "0x53, 0x53") ||
			strings.Contains(text, "75 75") || strings.Contains(text, "0x4b, 0x4b") {
			t.Errorf("shown: %s", text)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Sealed), v.SealedID, []byte(v.Wrapped))
	}
	f.Add([]byte{}, "~", []byte{wrapVersion, 255})
	seed := seedOf(bytes.Repeat([]byte{7}, keyLength))
	s, err := New(seed, "clinic-a", "store-1", nil)
	if err != nil {
		f.Fatal(err)
	}
	ring, err := NewKeyRing("k", map[string][]byte{"k": make([]byte, keyLength)}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sealed []byte, id string, wrapped []byte) {
		if b, err := s.Open(nil, "evt-1", "patient.created", sealed); err == nil {
			t.Errorf("%x opens as %x", sealed, b)
		}
		if text, err := s.OpenID(id); err == nil && s.SealID(text) != id {
			t.Errorf("%q opens as %q, which is sealed otherwise", id, text)
		}
		if _, _, _, err := ring.Unwrap("clinic-a", wrapped); err == nil {
			t.Errorf("%x unwraps", wrapped)
		}
		if _, err := ring.OpenFile("index", wrapped); err == nil {
			t.Errorf("%x opens as a file", wrapped)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := sealer(b, freshSeed(b), "6b3c9f0e-5a35-4f0e-9b0a-0f6c2b1f3d10", "store-1")
	for _, size := range []int{1 << 10, 64 << 10} {
		plain, into := make([]byte, size), make([]byte, 0, size+Overhead)
		b.Run(fmt.Sprint("bytes=", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := s.Seal(into, "evt_0123456789abcdefghjkmnpqrs", "patient.created", plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("id", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.SealID("evt_0123456789abcdefghjkmnpqrs")
		}
	})
	b.Run("blind", func(b *testing.B) {
		b.ReportAllocs()
		var v [16]byte
		for b.Loop() {
			s.Blind(UseKey, v[:])
		}
	})
}
