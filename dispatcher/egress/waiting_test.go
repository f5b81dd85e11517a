package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// silentEndpoint, in the environment, makes this test binary an endpoint that takes requests and never answers, so that
// its memory is not measured: "http" or "https". It prints its address, and its certificate.
const silentEndpoint = "EGRESS_TEST_SILENT"

func beSilent(scheme string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var config *tls.Config
	_, _ = fmt.Fprintf(os.Stdout, "%s://%s\n", scheme, listener.Addr())
	if scheme == "https" {
		config = identified(&tls.Config{})
		_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]})
	}
	_ = os.Stdout.Close()
	go func() { // the parent's end is ours
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go speak(c, config, func(p *peer) { _, _ = io.Copy(io.Discard, p) })
	}
}

// startSilent starts a silent endpoint, and returns its URL and the authority to trust.
func startSilent(t testing.TB, scheme string) (string, *Roots) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), silentEndpoint+"="+scheme)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = command.Wait() })
	b := bufio.NewReader(stdout)
	url, err := b.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if scheme == "http" {
		return strings.TrimSpace(url), nil
	}
	roots, err := ParseRoots(rest)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url), roots
}

// held is the memory of this process that is in use: heap and stacks.
func held() int64 {
	var stats runtime.MemStats
	for range 3 { // a stack shrinks by half in each collection
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// waitingCost returns what each of n attempts holds while it waits. send calls written when its request was written, and
// returns when ctx ends.
func waitingCost(t testing.TB, n int, send func(ctx context.Context, written func())) int64 {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var waiting, sending sync.WaitGroup
	turns := make(chan struct{}, 64) // no more connect at once
	before := held()
	for range n {
		waiting.Add(1)
		turns <- struct{}{}
		sending.Go(func() {
			send(ctx, func() { <-turns; waiting.Done() })
		})
	}
	all := make(chan struct{})
	go func() { waiting.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Fatal("not all wait")
	}
	cost := (held() - before) / int64(n)
	stop()
	sending.Wait()
	return cost
}

// sendWaiting sends by Client.
func sendWaiting(t testing.TB, url string, roots *Roots) func(context.Context, func()) {
	c := newClient(t)
	request := newRequest(t, url, func(target *Target) { target.TLS, target.Timeout = &TLS{Roots: roots}, time.Minute })
	return func(ctx context.Context, written func()) {
		r := request
		r.Body, r.Written = append([]byte(nil), benchBody()...), written
		c.Send(ctx, r)
	}
}

// postWaiting sends by a tuned http.Transport.
func postWaiting(t testing.TB, url string, roots *Roots) func(context.Context, func()) {
	client := tuned(t, roots)
	return func(ctx context.Context, written func()) {
		body := &finished{b: benchBody(), then: written}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
		if err != nil {
			t.Error(err)
			return
		}
		request.ContentLength = int64(len(body.b))
		if response, err := client.Do(request); err == nil {
			_ = response.Body.Close()
		}
	}
}

// finished is a body that tells when it was read.
type finished struct {
	b    []byte
	then func()
}

func (f *finished) Read(b []byte) (int, error) {
	n := copy(b, f.b)
	f.b = f.b[n:]
	if len(f.b) > 0 {
		return n, nil
	}
	return n, io.EOF
}

func (f *finished) Close() error {
	if f.then != nil {
		f.then()
		f.then = nil
	}
	return nil
}

// TestWaitingCost holds what the constants say: others plan with them.
func TestWaitingCost(t *testing.T) { // not parallel: it measures the process
	if raceEnabled {
		t.Skip("the race detector holds memory of its own")
	}
	for scheme, want := range map[string]int64{"http": WaitingCostPlain, "https": WaitingCost} {
		url, roots := startSilent(t, scheme)
		got := waitingCost(t, 500, sendWaiting(t, url, roots))
		if t.Logf("%s: %d bytes", scheme, got); got > want || got < want/2 {
			t.Errorf("%s: an attempt that waits holds %d bytes, want at most %d, and not much less", scheme, got, want)
		}
	}
}

// BenchmarkWaiting reports what an attempt holds while it waits for its answer, here and with http.Transport.
func BenchmarkWaiting(b *testing.B) {
	for _, scheme := range []string{"http", "https"} {
		for name, loop := range map[string]func(testing.TB, string, *Roots) func(context.Context, func()){"egress": sendWaiting, "transport": postWaiting} {
			b.Run(name+"/"+scheme, func(b *testing.B) {
				url, roots := startSilent(b, scheme)
				for b.Loop() {
					b.ReportMetric(float64(waitingCost(b, 2000, loop(b, url, roots))), "bytes/attempt")
				}
			})
		}
	}
}
