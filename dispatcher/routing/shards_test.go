package routing

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
)

// entryOf returns an entry as Compile makes them, different for each i.
func entryOf(i int) *Entry {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	key[0], key[len(key)-1] = 'k', 'k' // white space around a key is refused
	return &Entry{
		Identity:    fmt.Sprintf("%08x-7a53-4c1c-9d0e-2f4b6a8c%04x", i*2654435761&0xffffffff, i&0xffff),
		Namespace:   fmt.Sprintf("clinic-%d", i/10),
		Name:        fmt.Sprintf("billing-sync-%d", i),
		Generation:  int64(i%5 + 1),
		Patterns:    []event.Pattern{"encounter.updated", "appointment.*"},
		URL:         fmt.Sprintf("https://billing-%d.example.com/hooks", i),
		Header:      http.Header{"X-Team": {"billing"}},
		Keys:        [][]byte{key},
		Timeout:     30 * time.Second,
		Retry:       Retry{Initial: 30 * time.Second, Max: 2 * time.Hour, MaxAge: 72 * time.Hour, Factor: 4},
		MaxInFlight: 32,
	}
}

// entriesOf returns n entries, sorted by identity.
func entriesOf(n int) []*Entry {
	entries := make([]*Entry, n)
	for i := range entries {
		entries[i] = entryOf(i)
	}
	slices.SortFunc(entries, func(a, b *Entry) int { return strings.Compare(a.Identity, b.Identity) })
	return entries
}

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestShardRoundTrip(t *testing.T) {
	t.Parallel()
	entries := entriesOf(50)
	entries[7] = Hold(entries[7], 9, "SecretNotFound")
	shard, err := EncodeShard(entries)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := DecodeShard(shard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, decoded); diff != "" {
		t.Error(diff)
	}
	slices.Reverse(entries)
	again, err := EncodeShard(entries)
	if err != nil || Hash(again) != Hash(shard) {
		t.Errorf("another order of the same entries has another hash (%v)", err)
	}
	entries[0].Suspended = true
	changed, err := EncodeShard(entries)
	if err != nil || Hash(changed) == Hash(shard) {
		t.Errorf("a changed entry has the same hash (%v)", err)
	}
}

func TestShardFull(t *testing.T) {
	t.Parallel()
	entry := entryOf(1)
	key := make([]byte, MaxShardBytes)
	_, _ = rand.Read(key)
	entry.Keys = [][]byte{key}
	_, err := EncodeShard([]*Entry{entry})
	if !errors.Is(err, ErrShardFull) || !strings.Contains(err.Error(), "1 subscriptions") {
		t.Errorf("got %v", err)
	}
	entry.Keys = [][]byte{make([]byte, maxShardText/4*3)} // in base64
	if _, err := EncodeShard([]*Entry{entry}); !errors.Is(err, ErrShardFull) {
		t.Errorf("what no reader takes was written: %v", err)
	}
}

func TestAHundredThousandSubscriptionsFit(t *testing.T) {
	t.Parallel()
	var counts [Shards]int
	for i := range 100_000 {
		counts[ShardOf(entryOf(i).Identity)]++
	}
	largest := entriesOf(slices.Max(counts[:]))
	shard, err := EncodeShard(largest)
	if err != nil {
		t.Fatal(err)
	}
	if len(shard) > MaxShardBytes/2 {
		t.Errorf("the largest of %d shards has %d entries in %d bytes; want room for twice as much", Shards, len(largest), len(shard))
	}
}

func TestDecodeShardRefuses(t *testing.T) {
	t.Parallel()
	good, err := EncodeShard(entriesOf(3))
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-6] ^= 1 // the checksum
	for name, tc := range map[string]struct {
		shard []byte
		want  string
	}{
		"nothing":       {nil, "EOF"},
		"not gzip":      {[]byte(`{"format":1,"entries":[]}`), "gzip"},
		"cut off":       {good[:len(good)/2], "EOF"},
		"no trailer":    {good[:len(good)-8], "EOF"},
		"damaged":       {flipped, "checksum"},
		"too large":     {make([]byte, MaxShardBytes+1), "more than"},
		"bomb":          {gzipped(t, strings.Repeat(" ", maxShardText+1)+"{}"), "decompresses to more"},
		"no JSON":       {gzipped(t, "entries"), "invalid character"},
		"later format":  {gzipped(t, `{"format":2,"entries":[]}`), "format 2 is not known"},
		"no format":     {gzipped(t, `{"entries":[]}`), "format 0"},
		"unknown field": {gzipped(t, `{"format":1,"entries":[{"identity":"a","someday":"false"}]}`), "someday"},
		"null":          {gzipped(t, `{"format":1,"entries":[null]}`), "sorted"},
		"twice":         {gzipped(t, `{"format":1,"entries":[{"identity":"a"},{"identity":"a"}]}`), "sorted"},
		"not sorted":    {gzipped(t, `{"format":1,"entries":[{"identity":"b"},{"identity":"a"}]}`), "sorted"},
		"more behind":   {gzipped(t, `{"format":1,"entries":[]}{}`), "after top-level value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if entries, err := DecodeShard(tc.shard); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", entries, err, tc.want)
			}
		})
	}
}

func TestDecodeShardKeepsValuesOutOfErrors(t *testing.T) {
	t.Parallel()
	for _, field := range []string{
		`"keys":["` + canary + `!"]`, `"url":{"` + canary + `":1}`, `"timeout":"` + canary + `"`, `"header":{"A":["` + canary + `",1]}`,
		`"generation":"` + canary + `"`, `"generation":42.4242`,
	} {
		_, err := DecodeShard(gzipped(t, `{"format":1,"entries":[{"identity":"a",`+field+`}]}`))
		if err == nil || strings.Contains(strings.ReplaceAll(err.Error(), "url/"+canary, ""), canary) || strings.Contains(err.Error(), "42.4242") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestIndexRoundTrip(t *testing.T) {
	t.Parallel()
	want := &Index{Revision: 17, Layout: Small, Shards: map[int]string{0: Hash([]byte("a")), 7: Hash([]byte("b")), 63: Hash([]byte("c"))}}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := want.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("the same index has other bytes (%v)", err)
	}
	got, err := DecodeIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeIndexRefuses(t *testing.T) {
	t.Parallel()
	hash := Hash(nil)
	for name, tc := range map[string]struct{ index, want string }{
		"nothing":       {``, "EOF"},
		"too large":     {strings.Repeat(" ", maxIndexBytes+1), "more than"},
		"later format":  {`{"format":2,"revision":1,"shards":{}}`, "format 2"},
		"no revision":   {`{"format":1,"shards":{}}`, "no revision"},
		"unknown field": {`{"format":1,"revision":1,"shards":{},"key":"k"}`, "key"},
		"shard 64":      {`{"format":1,"revision":1,"shards":{"64":"` + hash + `"}}`, "not a shard"},
		"shard -1":      {`{"format":1,"revision":1,"shards":{"-1":"` + hash + `"}}`, "not a shard"},
		"shard 7":       {`{"format":1,"revision":1,"shards":{"7":"` + hash + `"}}`, "not a shard"},
		"short hash":    {`{"format":1,"revision":1,"shards":{"07":"` + hash[2:] + `"}}`, "not a hash"},
		"path":          {`{"format":1,"revision":1,"shards":{"07":"../../../etc/passwd"}}`, "not a hash"},
		"upper":         {`{"format":1,"revision":1,"shards":{"07":"` + strings.ToUpper(hash) + `"}}`, "not a hash"},
		"more behind":   {`{"format":1,"revision":1,"shards":{}} {}`, "after top-level value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if index, err := DecodeIndex([]byte(tc.index)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", index, err, tc.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	if got := IndexName("default"); got != "default-routes" {
		t.Error(got)
	}
	if got := ShardName("default", 7); got != "default-routes-07" {
		t.Error(got)
	}
}

func FuzzDecodeShard(f *testing.F) {
	good, err := EncodeShard(entriesOf(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(gzipped(f, `{"format":1,"entries":[{"identity":"a","patterns":["*"],"keys":[""]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := DecodeShard(b)
		if err != nil {
			return
		}
		for _, entry := range entries {
			_, _ = entry.Route() // whatever it holds, it must not panic
		}
		if _, err := EncodeShard(entries); err != nil && !errors.Is(err, ErrShardFull) {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
	})
}

// FuzzShardText reaches what stands behind the compression.
func FuzzShardText(f *testing.F) {
	f.Add(`{"format":1,"entries":[{"identity":"a","namespace":"n","name":"m","patterns":["*"],"keys":["aw=="],"url":"https://e","timeout":1}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := DecodeShard(gzipped(t, text))
		if err != nil {
			return
		}
		for _, entry := range entries {
			if route, err := entry.Route(); err == nil && (len(route.Patterns) == 0 || route.Endpoint.MaxInFlight < 1) {
				t.Fatalf("%+v made a route", entry)
			}
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	good, err := (&Index{Revision: 3, Shards: map[int]string{7: Hash(nil)}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := DecodeIndex(b)
		if err != nil {
			return
		}
		again, err := index.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if decoded, err := DecodeIndex(again); err != nil || !cmp.Equal(index, decoded) {
			t.Fatalf("got %v, %v; want %v", decoded, err, index)
		}
	})
}
