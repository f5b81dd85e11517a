package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// identity is a certificate for 127.0.0.1, and a pool that trusts it.
var identity = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return server.TLS.Certificates[0], pool
})

// valve is a connection that holds back what is written, until it is told how much of it to send, in one piece.
type valve struct {
	net.Conn
	holding bool
	held    bytes.Buffer
}

func (v *valve) Write(b []byte) (int, error) {
	if v.holding {
		return v.held.Write(b)
	}
	return v.Conn.Write(b)
}

// open sends what was held, but for the last cut bytes.
func (v *valve) open(cut int) {
	_, _ = v.Conn.Write(v.held.Bytes()[:max(v.held.Len()-cut, 0)])
	v.held.Reset()
	v.holding = false
}

// peer is the endpoint's side of a connection: what is written at once is one TLS record, or the same bytes in the clear.
type peer struct {
	valve *valve
	io.ReadWriter
}

// peers are the ways to speak to an endpoint.
var peers = map[string]*tls.Config{
	"plain":   nil,
	"TLS 1.2": {MaxVersion: tls.VersionTLS12},
	"TLS 1.3": {},
}

// newPeers starts a receiver that hands each connection to serve.
func newPeers(t testing.TB, config *tls.Config, serve func(*peer)) *receiver {
	t.Helper()
	config = identified(config)
	r := newReceiver(t, func(c net.Conn) { speak(c, config, serve) })
	if config != nil {
		r.url = strings.Replace(r.url, "http:", "https:", 1)
	}
	return r
}

// identified is config with a certificate; nil for nil.
func identified(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	config = config.Clone()
	certificate, _ := identity()
	config.Certificates = []tls.Certificate{certificate}
	return config
}

// speak serves c, in the clear if there is no config.
func speak(c net.Conn, config *tls.Config, serve func(*peer)) {
	v := &valve{Conn: c}
	if config == nil {
		serve(&peer{valve: v, ReadWriter: v})
		return
	}
	secured := tls.Server(v, config)
	if secured.HandshakeContext(context.Background()) == nil {
		serve(&peer{valve: v, ReadWriter: secured})
	}
}

func trusting(o *Options) { _, o.RootCAs = identity() }

const (
	truth = "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"
	lie   = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// TestWhatIsLeftIsNeverTaken keeps the promise of row B1: an endpoint fails each delivery, and adds what reads like the
// success of the next one.
func TestWhatIsLeftIsNeverTaken(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		records  []string // written together
		cut      int      // bytes of the last one that never come
		wantKept bool
	}{
		"nothing":                   {records: []string{truth}, wantKept: true},
		"in two records":            {records: []string{truth[:20], truth[20:]}, wantKept: true},
		"in many records":           {records: strings.SplitAfter(truth, ""), wantKept: true},
		"in chunks":                 {records: []string{"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"}, wantKept: true},
		"in the same record":        {records: []string{truth + lie}},
		"in the next record":        {records: []string{truth, lie}},
		"in the third record":       {records: []string{truth[:20], truth[20:], lie}},
		"begun in the same record":  {records: []string{truth + lie[:30], lie[30:]}},
		"most of a record":          {records: []string{truth, lie}, cut: 1},
		"a byte of a record's body": {records: []string{truth, lie}, cut: len(lie) + 15},
		"more body than its length": {records: []string{"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno" + strings.Repeat("x", 3000) + lie}},
		"a body where there is none": {
			records: []string{"HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n" + lie},
		},
		"behind chunks": {records: []string{"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n" + lie}},
		"a line's end":  {records: []string{truth, "\r\n"}},
	} {
		for kind, config := range peers {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				written := make(chan struct{}, 64)
				r := newPeers(t, config, func(p *peer) {
					for b := bufio.NewReader(p); readRequest(b); {
						p.valve.holding = true
						for _, record := range tc.records {
							_, _ = io.WriteString(p, record)
						}
						cut := tc.cut
						if config == nil {
							cut = min(cut, len(tc.records[len(tc.records)-1])-1)
						}
						p.valve.open(cut)
						written <- struct{}{}
					}
				})
				c := newClient(t, trusting)
				const attempts = 4
				for i := range attempts {
					result := deliver(context.Background(), c, newRequest(t, r.url))
					if result.Reason != delivery.ReasonStatusCode {
						t.Fatalf("attempt %d: %+v, want a failure", i, result)
					}
					received(t, written)
				}
				want := int64(attempts)
				if tc.wantKept {
					want = 1
				}
				if n := r.accepted.Load(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		}
	}
}

// TestAnOpenRecordIsNeverKept leaves a record without its end when the answer is complete: its end would be taken later.
func TestAnOpenRecordIsNeverKept(t *testing.T) {
	t.Parallel()
	for cut := 1; cut < 40; cut += 3 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			t.Parallel()
			written := make(chan struct{}, 64)
			r := newPeers(t, &tls.Config{}, func(p *peer) {
				for b := bufio.NewReader(p); readRequest(b); written <- struct{}{} {
					p.valve.holding = true
					_, _ = io.WriteString(p, truth)
					_, _ = io.WriteString(p, "x")
					p.valve.open(min(cut, 22))
				}
			})
			c := newClient(t, trusting)
			for range 3 {
				c.Send(context.Background(), newRequest(t, r.url))
				received(t, written)
			}
			if n := r.accepted.Load(); n != 3 {
				t.Errorf("%d connections, want 3", n)
			}
		})
	}
}

// TestTenantsShareNoConnection holds for connections, and for TLS sessions.
func TestTenantsShareNoConnection(t *testing.T) {
	t.Parallel()
	for kind, config := range peers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			resumed := 0
			r := newPeers(t, config, func(p *peer) {
				if secured, ok := p.ReadWriter.(*tls.Conn); ok && secured.ConnectionState().DidResume {
					mu.Lock()
					resumed++
					mu.Unlock()
				}
				for b := bufio.NewReader(p); readRequest(b); {
					_, _ = io.WriteString(p, noContent)
				}
			})
			c := newClient(t, trusting)
			send := func(tenant string, fresh bool) {
				t.Helper()
				request := newRequest(t, r.url)
				request.Tenant, request.Fresh = tenant, fresh
				if result := c.Send(context.Background(), request); !result.Delivered() {
					t.Fatalf("%s: %+v", tenant, result)
				}
			}
			for range 3 {
				for _, tenant := range []string{"a", "b", ""} {
					send(tenant, false)
				}
			}
			if n := r.accepted.Load(); n != 3 {
				t.Errorf("%d connections, want one for each tenant", n)
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return resumed
			}
			if n := count(); n != 0 {
				t.Errorf("%d sessions were resumed by another tenant", n)
			}
			send("a", true)
			if n := count(); config != nil && n != 1 {
				t.Errorf("%d sessions were resumed by the same tenant, want 1", n)
			}
			if n := r.accepted.Load(); n != 4 {
				t.Errorf("%d connections, want another one for a fresh attempt", n)
			}
		})
	}
}

// received waits for what should come at once.
func received[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// FuzzDesync plays what an endpoint may write, and checks that no attempt takes an answer that was written before its
// request was read. Each byte of the script is a piece of what is written after a request, and whether it ends a record.
func FuzzDesync(f *testing.F) {
	for _, seed := range []string{"\x00", "\x00\x01", "\x80\x81", "\x00\x02\x00", "\x83\x00\x04", "\x05\x00\x85", "\x86\x01", "\x07\x87\x01", "\x00\xff\x08\x01"} {
		f.Add([]byte(seed), true, uint8(0))
		f.Add([]byte(seed), false, uint8(9))
	}
	f.Fuzz(func(t *testing.T, script []byte, secured bool, cut uint8) {
		if len(script) > 32 {
			return
		}
		var config *tls.Config
		if secured {
			config = peers["TLS 1.3"]
		}
		written := make(chan int, 64)
		r := newPeers(t, config, func(p *peer) {
			b := bufio.NewReader(p)
			for {
				request, err := http.ReadRequest(b)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				number, _ := strconv.Atoi(request.Header.Get(headerAttempt))
				play(p, script, number, int(cut))
				written <- number
			}
		})
		c := newClient(t, trusting)
		for i := 1; i <= 4; i++ {
			request := newRequest(t, r.url, func(t *Target) { t.Timeout = 40 * time.Millisecond })
			request.Number = i
			result := c.Send(context.Background(), request)
			if result.StatusCode != 0 && result.StatusCode != 200+i {
				t.Fatalf("attempt %d took the answer %d, which was written to another request", i, result.StatusCode)
			}
			for last := 0; result.StatusCode != 0 && last != i; { // all of the script is written before the next attempt
				last = received(t, written)
			}
		}
	})
}

// play writes what script says to the request of that number, whose answers have a status code of their own.
func play(p *peer, script []byte, number, cut int) {
	answer := fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok", 200+number)
	pieces := []string{
		answer,
		answer + answer,
		answer[:len(answer)-1],
		fmt.Sprintf("HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200+number),
		answer[:9],
		"HTTP/1.1 100 Continue\r\n\r\n",
		"\r\n",
		"x",
		fmt.Sprintf("HTTP/1.1 %d X\r\n\r\n", 200+number),
	}
	p.valve.holding = true
	var record strings.Builder
	for _, step := range script {
		record.WriteString(pieces[int(step&0x7f)%len(pieces)])
		if step&0x80 != 0 {
			_, _ = io.WriteString(p, record.String())
			record.Reset()
		}
	}
	if record.Len() > 0 {
		_, _ = io.WriteString(p, record.String())
	}
	p.valve.open(cut)
}
