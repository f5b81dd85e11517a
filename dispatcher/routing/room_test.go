package routing

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/event"
)

// noise is text that compresses as badly as any.
func noise(t testing.TB, n int) string {
	t.Helper()
	const alphabet = "!#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~\"\\"
	text := make([]byte, n)
	for i := range text {
		text[i] = alphabet[mathrand.IntN(len(alphabet))]
	}
	return string(text)
}

// TestRoomHoldsWhatItCosts: entries that cost as much as a shard has room for fit into a Secret, whatever they are.
func TestRoomHoldsWhatItCosts(t *testing.T) {
	t.Parallel()
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	var rules []EgressRule
	for range 64 {
		rules = append(rules, EgressRule{CIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom16([16]byte(random(16))), 96)}, Ports: []uint16{uint16(mathrand.IntN(65535) + 1)}})
	}
	small := func(i int) *Entry {
		e := entryOf(i)
		e.Identity, e.Namespace, e.Name = hex.EncodeToString(random(16)), noise(t, 2), fmt.Sprint(i)
		e.Generation, e.Revision, e.Retry.MaxAge, e.Retry.Max, e.Retry.Initial, e.Timeout = mathrand.Int64(), mathrand.Int64(), 1+4*72e9, 1+3*72e9, 123456789, 987654321
		e.MaxInFlight, e.RequestsPerSecond, e.Retry.MaxAttempts, e.Retry.Factor = mathrand.IntN(256)+1, mathrand.IntN(10000), mathrand.IntN(10000), mathrand.IntN(10)+1
		e.Quota = &Quota{EventsPerSecond: mathrand.IntN(1e6), PendingBytes: mathrand.Int64(), PendingDeliveries: mathrand.Int64(), AttemptsInFlight: mathrand.IntN(1e5)}
		e.Header, e.Patterns = nil, []event.Pattern{"*"}
		return e
	}
	for name, entry := range map[string]func(i int) *Entry{
		"small": small,
		"large headers": func(i int) *Entry {
			e := entryOf(i)
			e.Header = http.Header{}
			for k := range 16 {
				e.Header[fmt.Sprintf("X-%d", k)] = []string{noise(t, 1000)}
			}
			return e
		},
		"many headers": func(i int) *Entry {
			e := entryOf(i)
			e.Header = http.Header{}
			for range 32 {
				e.Header["X-"+hex.EncodeToString(random(4))] = []string{noise(t, 4)}
			}
			return e
		},
		"control characters": func(i int) *Entry {
			e := entryOf(i)
			e.Header = http.Header{"X": {strings.Map(func(r rune) rune {
				if r < 'K' {
					return '\t'
				}
				return r
			}, noise(t, 8000))}}
			return e
		},
		"keys": func(i int) *Entry { e := entryOf(i); e.Keys = [][]byte{random(512), random(512)}; return e },
		"CA":   func(i int) *Entry { e := entryOf(i); e.CA = noise(t, 64<<10); return e },
		"client certificates": func(i int) *Entry {
			e := entryOf(i)
			e.TLS = &TLS{ServerName: noise(t, 200), Chain: noise(t, 4<<10), Key: noise(t, 2<<10)}
			return e
		},
		"patterns": func(i int) *Entry {
			e := entryOf(i)
			for range 100 {
				e.Patterns = append(e.Patterns, event.Pattern(hex.EncodeToString(random(3))+".created"))
			}
			return e
		},
		"rules": func(i int) *Entry {
			e := entryOf(i)
			e.Egress, e.Tenant = rules, hex.EncodeToString(random(18))
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var entries []*Entry
			for i, room := 0, ShardRoom; ; i++ {
				e := entry(i)
				if room -= e.Cost(); room < 0 {
					break
				}
				entries = append(entries, e)
			}
			shard, err := EncodeShard(entries)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d entries of %d bytes take %d%% of a Secret", len(entries), ShardRoom/len(entries), 100*len(shard)/MaxShardBytes)
		})
	}
}
