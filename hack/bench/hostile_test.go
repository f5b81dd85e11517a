package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// deliver posts a body to the trap over a connection of its own and returns the answer's first line; "" if none comes.
func deliver(t *testing.T, address, path string, body []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: trap\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

func serveTrap(t *testing.T, tr *trap) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { _ = tr.accept(listener) }()
	return listener.Addr().String()
}

func TestTrapMisbehavesAsThePathSays(t *testing.T) {
	tests := map[string]struct {
		behaviour   string
		size        int
		wantAnswer  string
		wantArrived int
	}{
		"ok":    {behaviourOK, bodySize, "HTTP/1.1 200 OK", 1},
		"large": {behaviourOK, 1 << 20, "HTTP/1.1 200 OK", 1},
		"fails": {behaviourFail, bodySize, "HTTP/1.1 500 Internal Server Error", 0},
		"busy":  {behaviourBusy, bodySize, "HTTP/1.1 429 Too Many Requests", 0},
		"hangs": {behaviourHang, bodySize, "", 0},
		"drips": {behaviourDrip, bodySize, "H", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := newTrap()
			load := trapTally{newTally(), 7}
			load.begin(plan{Run: 3, Events: 4, Groups: 2, Fan: 2})
			tr.loads[3] = load
			body := append(delivered(identity{run: 3, number: 1, sent: time.Now()}), bytes.Repeat([]byte(" "), max(0, test.size-bodySize))...)
			answer := deliver(t, serveTrap(t, tr), "/"+test.behaviour+"/8/1", body)
			if answer != test.wantAnswer {
				t.Errorf("answer is %q, want %q", answer, test.wantAnswer)
			}
			if sum := load.sum(); sum.Arrived != test.wantArrived || sum.Misrouted != 0 {
				t.Errorf("tally is %+v, want %d arrived", sum, test.wantArrived)
			}
		})
	}
}

func TestTrapNoticesWhatWentAstray(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path          string
		wantMisrouted int
	}{
		"its own":          {"/ok/8/1", 0},
		"another of it":    {"/ok/7/1", 1},
		"before the first": {"/ok/2/1", 1},
		"no such endpoint": {"/ok/8/2", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTrap()
			load := trapTally{newTally(), 7}
			load.begin(plan{Run: 3, Events: 4, Groups: 2, Fan: 2})
			tr.loads[3] = load
			tr.take([]byte(test.path), delivered(identity{run: 3, number: 1, sent: time.Now()}))
			if sum := load.sum(); sum.Misrouted != test.wantMisrouted || sum.Arrived != 1-test.wantMisrouted {
				t.Errorf("tally is %+v, want %d misrouted", sum, test.wantMisrouted)
			}
		})
	}
}

func TestLimitIsSetInEitherVersionOfCgroups(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
		folder := t.TempDir()
		path := filepath.Join(folder, file)
		if err := os.WriteFile(path, []byte("max"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := setMemory(folder, 64<<20); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "67108864" {
			t.Errorf("%s holds %q (%v), want 67108864", file, got, err)
		}
	}
}

// TestAPlainFolderLimitsNothing: figures were once taken "within 1 GiB" that no kernel enforced.
func TestAPlainFolderLimitsNothing(t *testing.T) {
	t.Parallel()
	l := &limit{parent: t.TempDir(), bytes: 64 << 20}
	cmd := exec.CommandContext(t.Context(), "true")
	err := l.start(cmd)
	if err == nil || !strings.Contains(err.Error(), "/sys/fs/cgroup/memory") {
		t.Errorf("the error is %v, want one that names the memory controller's folder", err)
	}
}

func TestLimitCountsKills(t *testing.T) {
	t.Parallel()
	l := &limit{folder: t.TempDir()}
	if err := os.WriteFile(filepath.Join(l.folder, "memory.events"), []byte("oom 2\noom_kill 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := l.kills(); got != 1 {
		t.Errorf("%d kills, want 1", got)
	}
}

func TestLimitKillsWhatPassesIt(t *testing.T) {
	t.Parallel()
	l := &limit{bytes: 64 << 10} // less than any process has
	cmd := exec.CommandContext(t.Context(), "tail", "-f", "/dev/null")
	cmd.Env = os.Environ()
	if err := l.start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended without an error, want it killed")
	}
	l.end()
	if l.kills() != 1 || l.peak <= l.bytes {
		t.Errorf("%d kills at a peak of %d bytes, want 1 above %d", l.kills(), l.peak, l.bytes)
	}
}

func TestAPIServerKnowsItsTokens(t *testing.T) {
	t.Parallel()
	a, err := startAPIServer(t.Context(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://" + a.address, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]bool{a.issue("clinic-1", 1): true, shapeToken("clinic-1", "publisher", "junk"): false} {
		review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err != nil || review.Status.Authenticated != want {
			t.Errorf("token is authenticated: %v (%v), want %v", review.Status.Authenticated, err, want)
		}
	}
	for namespace, want := range map[string]bool{"clinic-1": true, "clinic-2": false} {
		review, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:clinic-1:publisher",
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create"}}}, metav1.CreateOptions{})
		if err != nil || review.Status.Allowed != want {
			t.Errorf("access to %s is allowed: %v (%v), want %v", namespace, review.Status.Allowed, err, want)
		}
	}
}

// TestAuditCountsWhatIsNeitherSeenNorListed lets the list come in pages, and be refused once.
func TestAuditCountsWhatIsNeitherSeenNorListed(t *testing.T) {
	tr := newTrap()
	control := httptest.NewServer(tr.control())
	defer asking.CloseIdleConnections()
	defer control.Close()
	l := newLoad(plan{Run: 1, Events: 4, Groups: 1, Fan: 2}, "", 1, 1)
	l.first = 5
	of := func(n int) identity { return identity{run: 1, number: n, sent: time.Unix(0, 0)} }
	pages := map[string]string{"": fmt.Sprintf(`{"items":[{"event":{"id":%q},"subscription":"endpoint-1"}],"continue":"more"}`, appendID(nil, of(0))),
		"more": fmt.Sprintf(`{"items":[{"event":{"id":%q},"subscription":"endpoint-0"},{"event":{"id":"evt_other"},"subscription":"x"}],"continue":""}`, appendID(nil, of(1)))}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/namespaces/clinic-5/deliveries" || r.FormValue("state") != "Pending" {
			t.Errorf("the audit asks %s", r.URL)
		}
		_, _ = io.WriteString(w, pages[r.FormValue("continue")])
	}))
	defer api.Close()
	s := &stage{product: &product{api: strings.TrimPrefix(api.URL, "http://")}, trap: &remoteTrap{control: strings.TrimPrefix(control.URL, "http://")}}
	if err := s.trap.begin(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 2} { // 3 was not acknowledged
		l.accepted[n].Store(true)
	}
	tr.arrive(of(0), 5, 0, true, time.Now())
	tr.arrive(of(2), 5, 0, true, time.Now())
	tr.arrive(of(2), 6, 0, true, time.Now()) // another tenant's
	lost, crossed, pending, err := s.lost(t.Context(), l, "Pending")
	if err != nil || lost != 2 || crossed != 1 || pending != 2 {
		t.Errorf("%d lost, %d crossed, %d pending (%v), want 2, 1, 2", lost, crossed, pending, err)
	}
}

func TestAuditOfLargeLoadsIsASample(t *testing.T) {
	t.Parallel()
	l := newLoad(plan{Run: 1, Events: 1000, Groups: 1, Fan: 2000}, "", 1, 1)
	if endpoints, names := l.sampled(); len(endpoints) != 2000 || len(names) != 1 || names[0] != "" {
		t.Errorf("of few deliveries %d endpoints are audited by %d lists, want all by one", len(endpoints), len(names))
	}
	for n := range l.accepted {
		l.accepted[n].Store(true)
	}
	endpoints, names := l.sampled()
	if len(endpoints) != auditSample || endpoints[1] != 200 || names[1] != "endpoint-200" {
		t.Errorf("of many, %v by %v", endpoints, names)
	}
}

func TestStubbornLoadsOutliveTheirDispatcher(t *testing.T) {
	first := true
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			panic(http.ErrAbortHandler) // as one that is killed
		}
		if r.Header.Get("Authorization") != "Bearer token-0" {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer api.Close()
	l := newLoad(plan{Run: 1, Events: 1, Groups: 1, Fan: 1}, strings.TrimPrefix(api.URL, "http://"), 1, 1)
	l.stubborn, l.timeout, l.from = true, time.Minute, "127.0.2.2"
	l.token = func(id identity) string { return fmt.Sprint("token-", id.number) }
	if err := l.closedLoop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.acknowledged() != 1 || l.broken.Load() != 1 {
		t.Errorf("%d acknowledged after %d broken requests, want 1 after 1", l.acknowledged(), l.broken.Load())
	}
}

func TestFloodersComeBack(t *testing.T) {
	for _, kind := range []string{attackUploads, attackIdle, attackHeaders, attackTokens} {
		t.Run(kind, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			f := &flooder{attack: attack{Kind: kind, Target: listener.Addr().String(), Namespace: "clinic-0", From: localAddresses(2)},
				dialing: make(chan struct{}, 1), answers: map[int]int64{}}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				f.again(ctx, 1)
			}()
			for range 2 { // thrown out once
				conn, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if from := conn.RemoteAddr().(*net.TCPAddr).IP.String(); from != "127.0.2.3" {
					t.Errorf("the connection comes from %s", from)
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
			cancel()
			<-ended
			if f.opened.Load() != 2 || f.open.Load() != 0 {
				t.Errorf("%d opened, %d open, want 2 and 0", f.opened.Load(), f.open.Load())
			}
		})
	}
}

func TestFiguresOfHostileScenarios(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ got, want float64 }{
		"twice":             {ratio(40, 20, 2, 10), 2},
		"good enough":       {ratio(8, 1, 2, 10), 2},
		"too slow":          {ratio(30, 1, 2, 10), 30},
		"no growth":         {rise([]float64{1, 1, 100, 101, 99, 100}), 0},
		"growth":            {rise([]float64{1, 1, 100, 100, 150, 150}), 50},
		"too few to say":    {rise([]float64{1, 2}), 0},
		"share":             {float64((&bench{scale: 0.1}).share(1000, 10)), 100},
		"share has a least": {float64((&bench{scale: 0.001}).share(1000, 10)), 10},
		"no more than full": {float64((&bench{scale: 3}).share(1000, 10)), 1000},
	} {
		if diff := test.got - test.want; diff > 0.5 || diff < -0.5 {
			t.Errorf("%s: %v, want %v", name, test.got, test.want)
		}
	}
}

func TestAttacksCanBeTold(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(attack{Kind: attackIdle, From: localAddresses(1), Connections: 3})
	if err != nil {
		t.Fatal(err)
	}
	var back attack
	if err := json.Unmarshal(text, &back); err != nil || back.Connections != 3 || back.From[0] != "127.0.2.2" {
		t.Errorf("an attack came back as %+v (%v)", back, err)
	}
	if err := runFlood([]string{"x"}); err == nil {
		t.Error("an argument that is no attack is taken")
	}
}

func TestScenariosAreNamedOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range scenarios {
		if seen[s.name] || s.run == nil {
			t.Errorf("scenario %q is there twice, or does nothing", s.name)
		}
		seen[s.name] = true
	}
	var o options
	b := &bench{}
	_ = b.flags(&o)
	if strings.Contains(o.scenarios, "soak") || !strings.Contains(o.scenarios, "tenants-hang") {
		t.Errorf("by default %s run", o.scenarios)
	}
}
