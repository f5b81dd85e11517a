package egress

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// recording listens, and passes on the bytes of the first request that comes, which it answers.
func recording(t *testing.T) (address string, got <-chan []byte) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan []byte, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var raw bytes.Buffer
		r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &raw)))
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		if err != nil {
			return
		}
		requests <- raw.Bytes()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String(), requests
}

// TestComposeIsWhatSendWrites: what tools show is what the endpoint gets, byte for byte.
func TestComposeIsWhatSendWrites(t *testing.T) {
	t.Parallel()
	for name, shape := range map[string]*Shape{
		"as it is stored": nil,
		"shaped": {Method: http.MethodPut, Suffix: "/b?c=d", ContentType: "text/plain", Header: []Field{{"X-Own", "1"}, {"X-Team", "theirs"}},
			Attributes: []Field{{"ce-id", "evt_1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, got := recording(t)
			r := newRequest(t, "http://"+address+"/a?token=1", func(target *Target) {
				target.Header = http.Header{"X-Team": {"billing"}}
				target.Authorization = &Authorization{Basic: &Basic{User: "u", Password: "p"}}
			})
			r.Shape = shape
			result := newClient(t).Send(context.Background(), r)
			if !result.Delivered() {
				t.Fatalf("it was not sent: %s", result.Reason)
			}
			composed, err := Compose(r, result.Started, "1.2.3", "")
			if err != nil {
				t.Fatal(err)
			}
			raw := <-got
			if want := string(composed.Head) + string(r.Body); string(raw) != want {
				t.Errorf("the endpoint got\n%s\nand Compose says\n%s", raw, want)
			}
			_, line, _ := strings.Cut(string(raw), " ")
			line, _, _ = strings.Cut(line, " ")
			if composed.URL.String() != "http://"+address+line {
				t.Errorf("the URL is %s, and the request's %s", composed.URL, line)
			}
		})
	}
}

// TestComposeGetIsWhatFetchWrites is the same of lookups.
func TestComposeGetIsWhatFetchWrites(t *testing.T) {
	t.Parallel()
	for _, authorized := range []bool{false, true} {
		address, got := recording(t)
		target := newRequest(t, "http://"+address+"/a", func(target *Target) { target.Authorization = &Authorization{Bearer: "secret"} }).Target
		d := Document{URL: "http://" + address + "/x?y=z", Target: target, Authorized: authorized, Begun: time.Now()}
		if _, result := newClient(t).Fetch(context.Background(), d); !result.Delivered() {
			t.Fatalf("it was not fetched: %s", result.Reason)
		}
		composed, err := ComposeGet(d, "1.2.3", "")
		if err != nil {
			t.Fatal(err)
		}
		if raw := <-got; !bytes.Equal(raw, composed.Head) || composed.URL.String() != d.URL {
			t.Errorf("the endpoint got\n%s\nand ComposeGet says %s\n%s", raw, composed.URL, composed.Head)
		}
	}
}

// TestComposeRefuses what Send would not send, without a word of the target.
func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	r := newRequest(t, "https://example.com/secret")
	r.Shape = &Shape{Suffix: "/../x"}
	if _, err := Compose(r, time.Now(), "1", ""); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a suffix that leads out of the path: %v", err)
	}
	if _, err := ComposeGet(Document{URL: "ftp://example.com", Target: r.Target}, "1", ""); err == nil {
		t.Error("a URL that is not of the web was taken")
	}
}
