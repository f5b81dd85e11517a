package egress

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// capture is the receiver of one request; it returns the request's bytes as they came.
func capture(t *testing.T, send func(url string)) string {
	t.Helper()
	captured := make(chan string, 1)
	r := newReceiver(t, func(conn net.Conn) {
		var wire bytes.Buffer
		readRequest(bufio.NewReader(io.TeeReader(conn, &wire)))
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		captured <- wire.String()
	})
	send(r.url)
	return <-captured
}

func hexOf(key, content string) string { return hex.EncodeToString(macOf(key, content)) }

func base64Of(key, content string) string {
	return base64.StdEncoding.EncodeToString(macOf(key, content))
}

func macOf(key, content string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(content))
	return mac.Sum(nil)
}

// testTrace is a trace context (W3C Trace Context).
const testTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestWire(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		path      string
		change    func(*Target)
		trace     string
		wantPath  string
		wantBody  string
		wantMore  []string // header lines beside ours
		wantLater string   // further signatures
		wantAgent string   // the product's if empty
	}{
		"full": {wantPath: "/", wantBody: fullBody},

		"path, query and fragment": {
			path: "/a%2Fb/?token=x%20y#z", wantPath: "/a%2Fb/?token=x%20y", wantBody: fullBody,
		},
		"two keys": {
			change:   func(target *Target) { target.Keys = testKeys(t, testKey, oldKey) },
			wantPath: "/", wantBody: fullBody, wantLater: oldKey,
		},
		"own headers": {
			change: func(t *Target) {
				t.Header = http.Header{"X-Team": {"billing", "again"}, "Authorization": {"Bearer x"}, "Accept-Language": {"de"}}
			},
			wantPath: "/", wantBody: fullBody,
			wantMore: []string{"X-Team: billing", "X-Team: again", "Authorization: Bearer x", "Accept-Language: de"},
		},
		"headers that are ours": {
			change: func(t *Target) {
				t.Header = http.Header{}
				for name := range reservedNames {
					t.Header[name] = []string{"overridden"}
				}
				for _, prefix := range reservedPrefixes {
					t.Header[prefix+"x"] = []string{"overridden"}
				}
				t.Header["Ce_Id"] = []string{"overridden"}
				t.Header["x-clinik-attempt"] = []string{"overridden"}
				t.Header["X-ClinikAPI-Signature"] = []string{"overridden"}
			},
			wantPath: "/", wantBody: fullBody,
		},
		"a User-Agent of one's own": {
			change:   func(t *Target) { t.Header = http.Header{"user-agent": {"Clinic/7"}} },
			wantPath: "/", wantBody: fullBody, wantAgent: "Clinic/7",
		},
		"user and password": {
			path: "user:pass@", wantPath: "/", wantBody: fullBody, wantMore: []string{"Authorization: Basic dXNlcjpwYXNz"},
		},
		"a trace": {trace: testTrace, wantPath: "/", wantBody: fullBody, wantMore: []string{"Traceparent: " + testTrace}},
		"a trace of one's own": {
			change: func(t *Target) { t.Header = http.Header{"traceparent": {"theirs"}} },
			trace:  testTrace, wantPath: "/", wantBody: fullBody, wantMore: []string{"Traceparent: theirs"},
		},
		"an idempotency key of one's own": {
			change:   func(t *Target) { t.Header = http.Header{"Idempotency-Key": {"k"}} },
			wantPath: "/", wantBody: fullBody, wantMore: []string{"Idempotency-Key: k"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var result Result
			var request Request
			wire := capture(t, func(url string) {
				if user, found := strings.CutSuffix(tc.path, "@"); found {
					url = strings.Replace(url, "//", "//"+user+"@", 1)
				} else {
					url += tc.path
				}
				request = newRequest(t, url)
				request.Traceparent = tc.trace
				if tc.change != nil {
					tc.change(request.Target)
				}
				result = newClient(t).Send(context.Background(), request)
			})
			if !result.Delivered() || result.StatusCode != http.StatusNoContent {
				t.Fatalf("result %+v, want delivered by 204", result)
			}
			head, body, _ := strings.Cut(wire, "\r\n\r\n")
			if body != tc.wantBody {
				t.Errorf("body is %s, want %s", body, tc.wantBody)
			}
			lines := strings.Split(head, "\r\n")
			if want := "POST " + tc.wantPath + " HTTP/1.1"; lines[0] != want {
				t.Errorf("request line is %q, want %q", lines[0], want)
			}
			id, seconds := request.Delivery.String(), fmt.Sprint(result.Started.Unix())
			signed := id + "." + seconds + "." + tc.wantBody
			standard := "v1," + base64Of(testKey, signed)
			if tc.wantLater != "" {
				standard += " v1," + base64Of(tc.wantLater, signed)
			}
			url := strings.TrimPrefix(request.Target.URL, "http://")
			host, _, _ := strings.Cut(url[strings.Index(url, "@")+1:], "/")
			want := append([]string{
				"Host: " + host,
				"User-Agent: " + cmp.Or(tc.wantAgent, "EventFlow/1.2.3"),
				"Content-Length: " + fmt.Sprint(len(tc.wantBody)),
				"Content-Type: application/json",
				"X-Clinik-Signature: " + hexOf(testKey, tc.wantBody),
				"X-ClinikAPI-Signature: " + hexOf(testKey, tc.wantBody),
				"X-Clinik-Timestamp: " + seconds,
				"X-Clinik-Event: patient.created",
				"X-Clinik-Delivery-Id: " + id,
				"X-Clinik-Attempt: 2",
				"webhook-id: " + id,
				"webhook-timestamp: " + seconds,
				"webhook-signature: " + standard,
			}, tc.wantMore...)
			got := lines[1:]
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("headers are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
