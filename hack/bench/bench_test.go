package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIDsSayWhatTheyAreOf(t *testing.T) {
	t.Parallel()
	want := identity{run: 42, number: 123_456_789, sent: time.Unix(0, 1_763_795_251_123_456_789)}
	text := string(appendID(nil, want))
	if len(text) != idLength {
		t.Errorf("an id is %d bytes long, want %d", len(text), idLength)
	}
	if err := event.CheckID(text); err != nil {
		t.Errorf("the publish API refuses the id: %v", err)
	}
	got, ok := idOf(delivered(want))
	if !ok || got != want {
		t.Errorf("id of a body is %v, %v; want %v", got, ok, want)
	}
	for _, body := range []string{"", `{"id":"`, `{"id":"evt_06ew2xqaysf1rkwpp1pw3mn0c4xxxxxxx"`, strings.Replace(string(delivered(want)), "-", "x", 1)} {
		if id, ok := idOf([]byte(body)); ok {
			t.Errorf("body %.50q is taken for event %v", body, id)
		}
	}
}

func TestBodiesAreOfOneSize(t *testing.T) {
	t.Parallel()
	if got := len(delivered(identity{sent: time.Now()})); got != bodySize {
		t.Errorf("a delivered body is %d bytes long, want %d", got, bodySize)
	}
}

func TestRequestsAreHTTP(t *testing.T) {
	t.Parallel()
	ids := []identity{{run: 1, number: 2, sent: time.Now()}, {run: 1, number: 5, sent: time.Now()}}
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(post{namespace: "clinic-2", data: data}.append(nil, ids, true))))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		t.Fatal(err)
	}
	if request.URL.Path != "/v1/namespaces/clinic-2/events" || int64(len(body)) != request.ContentLength {
		t.Errorf("request to %s has %d bytes of %d", request.URL.Path, len(body), request.ContentLength)
	}
	if body[0] != '[' || body[len(body)-1] != ']' || bytes.Count(body, []byte(`},{"id":"`)) != 1 {
		t.Errorf("body is no array of two: %.60s", body)
	}
}

func TestAnswersAreRead(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer     string
		wantStatus int
		wantBody   string
		wantRetry  int
	}{
		"length":  {"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello", 202, "hello", 0},
		"chunked": {"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 202, "hello!", 0},
		"refused": {"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n", 503, "", 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReader(strings.NewReader(test.answer))
			var m message
			if err := readMessage(r, &m); err != nil {
				t.Fatal(err)
			}
			body, err := readBody(r, &m, nil)
			if err != nil {
				t.Fatal(err)
			}
			status, err := m.status()
			if err != nil || status != test.wantStatus || string(body) != test.wantBody || m.retryAfter != test.wantRetry {
				t.Errorf("read %d %q, retry after %d (%v)", status, body, m.retryAfter, err)
			}
			if r.Buffered() > 0 {
				t.Errorf("%d bytes were left", r.Buffered())
			}
		})
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("POST /ok/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReader(bytes.NewReader(text))
		var m message
		if err := readMessage(r, &m); err != nil || m.length > len(text) || m.chunked {
			return
		}
		_, _ = m.status()
		_ = m.path()
		if body, err := readBody(r, &m, nil); err == nil && len(body) != m.length {
			t.Errorf("read %d bytes of %d", len(body), m.length)
		}
	})
}

func TestTallyCounts(t *testing.T) {
	t.Parallel()
	tally := newTally()
	tally.begin(plan{Run: 7, Events: 4, Groups: 2, Fan: 2}) // endpoints 0 and 1 are of group 0
	now := time.Now()
	of := func(run, number int) identity {
		return identity{run: run, number: number, sent: now.Add(-3 * time.Millisecond)}
	}
	tally.arrive(of(7, 0), 0, true, now)
	tally.arrive(of(7, 0), 0, true, now)  // again
	tally.arrive(of(7, 0), 1, false, now) // refused, then taken
	tally.arrive(of(7, 0), 1, false, now)
	tally.arrive(of(7, 0), 1, true, now)
	tally.arrive(of(7, 3), 0, true, now) // another group's
	tally.arrive(of(6, 0), 0, true, now) // of an earlier run
	tally.arrive(of(7, 4), 0, true, now) // of no event
	got := tally.sum()
	want := tallied{Arrived: 2, Duplicates: 1, Failed: 1, Misrouted: 1, Last: now,
		Latency: quantiles{Count: 2, P50: 3, P90: 3, P99: 3, P999: 3, Max: 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}
}

func TestAuditFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	l := newLoad(plan{Run: 1, Events: 4, Groups: 2, Fan: 2}, "", 1, 1)
	for _, n := range []int{0, 1, 2} { // 3 was not acknowledged
		l.accepted[n].Store(true)
	}
	seen := []byte{1, 1, 2, 0, failedBit, 1, 1, 0}
	got := l.check(seen, everyEndpoint)
	if want := (audit{Acknowledged: 3, Expected: 6, Missing: 2, Unacknowledged: 1}); got != want {
		t.Errorf("audit is %+v, want %+v", got, want)
	}
	if got := l.check(seen, func(e int) bool { return e == 2 }); got.Missing != 0 || got.Expected != 1 {
		t.Errorf("audit of endpoint 2 alone is %+v", got)
	}
}

// fakeAPI acknowledges publishes and delivers what they hold, but for event number lose, to the receiver.
func fakeAPI(t *testing.T, r *receiver, lose int) *httptest.Server {
	t.Helper()
	refused := false
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !refused { // the first request is to be repeated
			refused = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(request.Body)
		for part := range bytes.SplitSeq(body, idPrefix) {
			if len(part) < idLength {
				continue
			}
			id, ok := parseID(part[:idLength])
			if !ok {
				t.Errorf("an event has the id %s", part[:idLength])
			}
			if id.number != lose {
				r.tally.arrive(id, id.number%r.tally.plan.Groups, true, time.Now())
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}))
}

func TestLoadsPublishEachEventOnce(t *testing.T) {
	tests := map[string]struct {
		batch, lose int
		run         func(*load) error
		wantMissing int
	}{
		"closed loop":         {1, -1, func(l *load) error { return l.closedLoop(t.Context()) }, 0},
		"closed loop, losing": {1, 13, func(l *load) error { return l.closedLoop(t.Context()) }, 1},
		"batches":             {7, -1, func(l *load) error { return l.closedLoop(t.Context()) }, 0},
		"open loop":           {1, -1, func(l *load) error { return l.openLoop(t.Context(), 2000) }, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &receiver{tally: newTally()}
			api := fakeAPI(t, r, test.lose)
			defer api.Close()
			l := newLoad(plan{Run: 1, Events: 100, Groups: 3, Fan: 1}, strings.TrimPrefix(api.URL, "http://"), 1, test.batch)
			r.tally.begin(l.plan)
			if err := test.run(l); err != nil {
				t.Fatal(err)
			}
			got := l.check(r.tally.arrivals(), everyEndpoint)
			got.Duplicates = r.tally.sum().Duplicates
			if want := (audit{Acknowledged: 100, Expected: 100, Missing: test.wantMissing}); got != want {
				t.Errorf("audit is %+v, want %+v", got, want)
			}
			if l.refused.Load() != 1 {
				t.Errorf("%d requests were refused, want 1", l.refused.Load())
			}
		})
	}
}

// TestRawLoopReachesEitherReceiver runs the raw loop, as a run of the bench does, against both kinds of receiver.
func TestRawLoopReachesEitherReceiver(t *testing.T) {
	serve := map[string]func(*receiver, net.Listener){
		"lean":     func(r *receiver, l net.Listener) { _ = r.accept(l) },
		"standard": func(r *receiver, l net.Listener) { _ = serveHTTP(l, http.HandlerFunc(r.handle)) },
	}
	for name, serve := range serve {
		t.Run(name, func(t *testing.T) {
			r := &receiver{tally: newTally()}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			go serve(r, listener)
			control := httptest.NewServer(r.control())
			defer asking.CloseIdleConnections()
			defer control.Close()
			self := &process{pid: 1}
			b := &bench{out: io.Discard, self: self, receiver: &remote{process: self, address: listener.Addr().String(), controlAddress: strings.TrimPrefix(control.URL, "http://")}}
			result, err := b.raw(context.Background(), 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			sum := r.tally.sum()
			if result.PerSecond <= 0 || sum.Arrived == 0 || sum.Duplicates > 0 || sum.Misrouted > 0 {
				t.Errorf("raw loop reached %+v, the receiver saw %+v", result, sum)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	m := &measured{}
	for _, v := range []float64{0.9, 0.6, 0.75} {
		m.add("ratio", v)
		m.add("other", 1)
		m.add("p99", v*10)
	}
	m.judge([]target{{"ratio", true, 0.7}, {"p99", false, 5}, {"nobody measured", false, 1}})
	var got []string
	for _, f := range m.Figures {
		got = append(got, f.Name+" "+f.median()+" "+f.spread()+" "+f.Reach+" "+f.verdict())
	}
	want := []string{
		"ratio 0.750 0.600 … 0.900 ≥ 0.700 reached", "p99 7.50 6 … 9 ≤ 5 MISSED", "nobody measured not measured  ≤ 1 MISSED", "other 1 1 … 1  ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

func TestGrowthForgivesNoise(t *testing.T) {
	t.Parallel()
	samples := func(values ...float64) []sample {
		all := []sample{{Seconds: 10, Sockets: 5000}}
		for i, v := range values {
			all = append(all, sample{Seconds: float64(61 + i), Sockets: v})
		}
		return all
	}
	tests := map[string]struct {
		samples []sample
		want    float64
	}{
		"level":   {samples(100, 103, 99, 101, 104, 102), 0},
		"growing": {samples(100, 110, 120, 130, 140, 150), 40},
		"falling": {samples(150, 140, 130, 120, 110, 100), 0},
		"short":   {samples(), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := growth(test.samples, func(s sample) float64 { return s.Sockets }); got != test.want {
				t.Errorf("growth is %v, want %v", got, test.want)
			}
		})
	}
}
