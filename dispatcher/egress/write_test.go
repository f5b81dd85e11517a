package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// largeBody is more than two sockets hold.
func largeBody() []byte { return bytes.Repeat([]byte("x"), 16<<20) }

// readHead reads a request's header off b, and leaves its body there.
func readHead(b *bufio.Reader) bool {
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			return false
		}
		if strings.TrimSpace(line) == "" {
			return true
		}
	}
}

// TestAnswerOvertakesItsRequest keeps the promise of row B2: the endpoint answers when it has the headers, keeps the
// connection, and reads no more.
func TestAnswerOvertakesItsRequest(t *testing.T) {
	t.Parallel()
	for kind, config := range peers {
		for _, code := range []int{200, 410, 413, 429} {
			t.Run(fmt.Sprint(kind, ", ", code), func(t *testing.T) {
				t.Parallel()
				over := make(chan struct{})
				r := newPeers(t, config, func(p *peer) {
					readHead(bufio.NewReader(p))
					_, _ = fmt.Fprintf(p, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", code)
					<-over
				})
				defer close(over)
				c := newClient(t, trusting)
				request := newRequest(t, r.url)
				request.Body = largeBody()
				var written atomic.Int32
				request.Written = func() { written.Add(1) }
				started := time.Now()
				result := c.Send(context.Background(), request)
				if took := time.Since(started); result.StatusCode != code || took > patience/2 { // TLS would take 5 s to say goodbye
					t.Errorf("%+v after %v, want %d at once", result, took, code)
				}
				if written.Load() != 0 {
					t.Error("a request that was cut off counts as written")
				}
				if n := len(c.pool.idle); n != 0 {
					t.Errorf("%d connections are kept", n)
				}
			})
		}
	}
}

// TestEarlySuccessGetsTheRest lets an endpoint answer 200 first and read afterwards: it gets the whole request.
func TestEarlySuccessGetsTheRest(t *testing.T) {
	t.Parallel()
	for kind, config := range peers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			body := largeBody()
			got := make(chan int64, 1)
			r := newPeers(t, config, func(p *peer) {
				b := bufio.NewReader(p)
				readHead(b)
				_, _ = io.WriteString(p, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				n, _ := io.Copy(io.Discard, io.LimitReader(b, int64(len(body))))
				got <- n
			})
			request := newRequest(t, r.url)
			request.Body = body
			if result := newClient(t, trusting).Send(context.Background(), request); !result.Delivered() {
				t.Errorf("%+v, want delivered", result)
			}
			if n := received(t, got); n != int64(len(body)) {
				t.Errorf("the endpoint got %d bytes of %d", n, len(body))
			}
		})
	}
}

// TestSmallRequestsDoNotWait has sockets that take less than a small request.
func TestSmallRequestsDoNotWait(t *testing.T) {
	t.Parallel()
	for kind, config := range peers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			config = identified(config)
			bodies, sent := make(chan string, 1), make(chan struct{})
			listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			newReceiverAt(t, listener, func(made net.Conn) {
				speak(made, config, func(p *peer) {
					b := bufio.NewReaderSize(p, 16)
					readHead(b)
					_, _ = io.WriteString(p, noContent)
					<-sent
					body, _ := io.ReadAll(b)
					bodies <- string(body)
				})
			})
			c := newClient(t, trusting)
			c.dialer.dial = func(ctx context.Context, _ netip.AddrPort, _ []Rule) (net.Conn, error) {
				made, err := new(net.Dialer).DialContext(ctx, "unix", listener.Addr().String())
				if err == nil {
					_ = made.(*net.UnixConn).SetWriteBuffer(1)
				}
				return made, err
			}
			scheme := "http"
			if config != nil {
				scheme = "https"
			}
			request := newRequest(t, scheme+"://127.0.0.1")
			request.Body = bytes.Repeat([]byte("x"), 7000)
			if result := c.Send(context.Background(), request); !result.Delivered() {
				t.Errorf("%+v, want delivered", result)
			}
			close(sent)
			if body := received(t, bodies); strings.Trim(body, "x") != "" || len(body) > len(request.Body) {
				t.Errorf("the endpoint got %q", body)
			}
		})
	}
}

// TestImpatientWritesKeepTheirOrder fills a socket, and sees everything come out.
func TestImpatientWritesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	got := make(chan []byte, 1)
	start := make(chan struct{})
	r := newReceiver(t, func(c net.Conn) {
		<-start
		all, _ := io.ReadAll(c)
		got <- all
	})
	made, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(made)
	w.patient = false
	var want []byte
	for i := 0; len(w.pending) < 1<<20; i++ {
		piece := bytes.Repeat([]byte{byte(i)}, 10_000)
		if n, err := w.Write(piece); n != len(piece) || err != nil {
			t.Fatalf("wrote %d: %v", n, err)
		}
		want = append(want, piece...)
	}
	close(start)
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if all := received(t, got); !bytes.Equal(all, want) {
		t.Errorf("%d bytes came out otherwise than %d went in", len(all), len(want))
	}
}

// TestWaitingHoldsNoBody lets attempts wait for their answers, and sees their bodies collected.
func TestWaitingHoldsNoBody(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		size   int
		config *tls.Config
	}{
		"small":      {size: 500},
		"small, TLS": {size: 500, config: peers["TLS 1.3"]},
		"large":      {size: 4 << 20},
		"large, TLS": {size: 4 << 20, config: peers["TLS 1.3"]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPeers(t, tc.config, func(p *peer) { _, _ = io.Copy(io.Discard, p) })
			c := newClient(t, trusting)
			ctx, stop := context.WithCancel(context.Background())
			collected, written, ended := make(chan struct{}), make(chan struct{}), make(chan Result, 1)
			go func() {
				request := newRequest(t, r.url)
				request.Body = []byte(strings.Replace(fullBody, "Jane", strings.Repeat("x", tc.size), 1))
				runtime.AddCleanup(&request.Body[0], func(done chan struct{}) { close(done) }, collected)
				request.Written = func() { close(written) }
				ended <- c.Send(ctx, request)
			}()
			received(t, written)
			await(t, "the body collected", func() bool {
				runtime.GC()
				select {
				case <-collected:
					return true
				default:
					return false
				}
			})
			select {
			case result := <-ended:
				t.Fatalf("ended: %+v", result)
			default:
			}
			stop()
			if result := received(t, ended); result.Reason != delivery.ReasonInterrupted {
				t.Errorf("%+v, want %s", result, delivery.ReasonInterrupted)
			}
		})
	}
}

// TestBodyIsNotReadAfterSend scribbles over bodies as soon as Send has returned; the race detector tells.
func TestBodyIsNotReadAfterSend(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"refused early": func(c net.Conn) {
			readHead(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
		},
		"answered":  answer(noContent),
		"reset":     reset,
		"closed":    func(net.Conn) {},
		"never":     func(c net.Conn) { readHead(bufio.NewReader(c)); _, _ = io.Copy(io.Discard, c) },
		"read slow": func(c net.Conn) { readHead(bufio.NewReader(c)); _, _ = io.ReadFull(c, make([]byte, 1<<20)) },
	} {
		for _, size := range []int{100, 9000, 4 << 20} {
			t.Run(fmt.Sprint(name, ", ", size), func(t *testing.T) {
				t.Parallel()
				r := newReceiver(t, serve)
				request := newRequest(t, r.url, func(target *Target) { target.Timeout = 100 * time.Millisecond })
				request.Body = bytes.Repeat([]byte("x"), size)
				var calls, returned atomic.Int32
				request.Written = func() {
					if calls.Add(1) > 1 || returned.Load() > 0 {
						t.Error("Written was called again, or after the end")
					}
				}
				result := newClient(t).Send(context.Background(), request)
				returned.Add(1)
				for i := range request.Body {
					request.Body[i] = 'y'
				}
				if result.Delivered() && calls.Load() != 1 {
					t.Error("delivered, but never written")
				}
			})
		}
	}
}

// TestStale lets a kept connection break when the next request comes: Send repeats nothing by itself.
func TestStale(t *testing.T) {
	t.Parallel()
	for kind, config := range peers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newPeers(t, config, func(p *peer) {
				b := bufio.NewReader(p)
				readRequest(b)
				_, _ = io.WriteString(p, noContent)
				_, _ = http.ReadRequest(b)
			})
			c := newClient(t, trusting)
			for _, want := range []delivery.Reason{"", delivery.ReasonStale} {
				if result := c.Send(context.Background(), newRequest(t, r.url)); result.Reason != want {
					t.Errorf("%+v, want reason %q", result, want)
				}
			}
			request := newRequest(t, r.url)
			request.Fresh = true
			if result := c.Send(context.Background(), request); !result.Delivered() {
				t.Errorf("fresh: %+v, want delivered", result)
			}
			if n := r.accepted.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// TestAFreshAttemptIsNeverStale has an endpoint that closes every connection.
func TestAFreshAttemptIsNeverStale(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(c net.Conn) { readRequest(bufio.NewReader(c)) })
	if result := newClient(t).Send(context.Background(), newRequest(t, r.url)); result.Reason != delivery.ReasonConnectionReset {
		t.Errorf("%+v, want %s", result, delivery.ReasonConnectionReset)
	}
}

// TestAwaitGivesErrors reads off sockets that end.
func TestAwaitGivesErrors(t *testing.T) {
	t.Parallel()
	var once sync.Once
	r := newReceiver(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		once.Do(func() { _ = c.(*net.TCPConn).SetLinger(0) })
	})
	for _, want := range []error{syscall.ECONNRESET, io.EOF} {
		made, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(made)
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := w.await(); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		_ = w.Close()
	}
}
