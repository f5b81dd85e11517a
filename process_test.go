package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestWithoutACluster takes the process from a published event to the exact bytes of its delivery.
func TestWithoutACluster(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	p := newPlane(t, e.URL+"/first")
	data := `{ "resourceType":"patient", "resourceId":"pt_1", "note":"\u00e9 é <&>", "n":1.0e2 }`
	status, answer := p.post(`{"id":"evt-1","type":"patient.created","timestamp":"2026-01-15T10:15:00+01:00","data":` + data + `,"previous":{"status":"x"}}`)
	if status != http.StatusAccepted || answer != `{"id":"evt-1","deliveries":1}`+"\n" {
		t.Fatalf("answer %d %s", status, answer)
	}
	eventually(t, "a delivery", func() bool { return len(e.received()) > 0 })
	got := e.received()[0]
	want := `{"id":"evt-1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z","data":` + data + `}`
	if string(got.body) != want {
		t.Errorf("body\n%s, want\n%s", got.body, want)
	}
	checkSignatures(t, got)
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Clinik-Event": "patient.created", "X-Clinik-Attempt": "1",
		"X-Clinik-Delivery-Id": got.header.Get("Webhook-Id"), "X-Clinik-Timestamp": got.header.Get("Webhook-Timestamp"),
	} {
		if got.header.Get(name) != want || want == "" {
			t.Errorf("%s is %q, want %q", name, got.header.Get(name), want)
		}
	}
	if seconds, _ := strconv.ParseInt(got.header.Get("X-Clinik-Timestamp"), 10, 64); got.at.Unix()-seconds > 5 || seconds > got.at.Unix() {
		t.Errorf("sent at %d, received at %d", seconds, got.at.Unix())
	}

	p.route(e.URL + "/second")
	n := 1
	eventually(t, "a delivery to where the changed manifest says", func() bool {
		n++
		p.publish(fmt.Sprintf("evt-%d", n))
		attempts := e.received()
		return attempts[len(attempts)-1].path == "/second"
	})
	eventually(t, "every event", func() bool { return len(e.received()) == n })
}

// checkSignatures computes both schemes independently of the product's code.
func checkSignatures(t *testing.T, a attempt) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signingKey, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	sum := func(text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	body := hex.EncodeToString(sum(string(a.body)))
	standard := "v1," + base64.StdEncoding.EncodeToString(sum(a.header.Get("Webhook-Id")+"."+a.header.Get("Webhook-Timestamp")+"."+string(a.body)))
	for name, want := range map[string]string{"X-Clinik-Signature": body, "X-ClinikAPI-Signature": body, "Webhook-Signature": standard} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestKilledWithDeliveriesPending kills the process between attempts: what was pending goes on where it was.
func TestKilledWithDeliveriesPending(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.fail(http.StatusServiceUnavailable)
	p := newPlane(t, e.URL)
	const events = 5 // fewer than open the circuit breaker
	for i := range events {
		p.publish(fmt.Sprintf("evt-%d", i))
	}
	eventually(t, "two attempts of each", func() bool {
		done := 0
		for _, d := range p.deliveries() {
			if d.AttemptCount >= 2 {
				done++
			}
		}
		attempts := e.received()
		// An outcome is on disk 50 ms after its attempt, and the next attempt a second after it.
		return done == events && time.Since(attempts[len(attempts)-1].at) > 300*time.Millisecond
	})
	p.end(syscall.SIGKILL)
	before := e.received()
	e.fail(http.StatusNoContent)
	p.start()
	eventually(t, "all delivered", func() bool {
		done := 0
		for _, d := range p.deliveries() {
			if d.State == "Delivered" {
				done++
			}
		}
		return done == events
	})

	last := make(map[string]attempt) // by delivery
	for _, a := range e.received() {
		id := a.header.Get("X-Clinik-Delivery-Id")
		previous, repeated := last[id]
		if number(t, a) > number(t, previous)+1 || (repeated && number(t, a) < number(t, previous)) {
			t.Errorf("%s: attempt %d follows %d", id, number(t, a), number(t, previous))
		}
		if repeated && number(t, a) > number(t, previous) && a.at.Sub(previous.at) < 900*time.Millisecond {
			t.Errorf("%s: attempt %d came %v after the one before, want the delay of 1s", id, number(t, a), a.at.Sub(previous.at))
		}
		last[id] = a
	}
	if len(last) != events {
		t.Errorf("%d deliveries, want %d: their ids must not change", len(last), events)
	}
	for id, a := range last {
		if number(t, a) < 3 {
			t.Errorf("%s: delivered by attempt %d, though two were made before the end", id, number(t, a))
		}
	}
	if len(before) < 2*events {
		t.Errorf("%d attempts before the end, want at least %d", len(before), 2*events)
	}
}

func number(t *testing.T, a attempt) int {
	t.Helper()
	if a.header == nil {
		return 0
	}
	n, err := strconv.Atoi(a.header.Get("X-Clinik-Attempt"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKilledWhilePublishing kills the process in the middle of everything: what was acknowledged arrives.
func TestKilledWhilePublishing(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	p := newPlane(t, e.URL)
	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	var producers sync.WaitGroup
	for producer := range 8 {
		producers.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("evt-%d-%d", producer, i)
				status, _ := p.post(`{"id":"` + id + `","type":"lab.created","data":{}}`)
				if status != http.StatusAccepted {
					return
				}
				mu.Lock()
				acknowledged[id] = true
				mu.Unlock()
			}
		})
	}
	eventually(t, "200 acknowledged events", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged) >= 200
	})
	p.end(syscall.SIGKILL)
	producers.Wait()
	p.start()
	eventually(t, "every acknowledged event", func() bool {
		arrived := make(map[string]bool)
		for _, a := range e.received() {
			_, rest, _ := strings.Cut(string(a.body), `{"id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			arrived[id] = true
		}
		for id := range acknowledged {
			if !arrived[id] {
				return false
			}
		}
		return true
	})
}

// TestStopped asks the process to end while an attempt is under way and others wait.
func TestStopped(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	e.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Clinik-Attempt") != "1" {
			return
		}
		select {
		case begun <- struct{}{}: // the first one hangs until the process was told to end
			<-finish
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := newPlane(t, e.URL)
	p.publish("evt-hanging")
	<-begun
	p.publish("evt-failing")
	eventually(t, "an attempt that failed", func() bool { return len(e.received()) >= 2 })

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz to fail", func() bool {
		response, err := http.Get("http://" + p.ops + "/readyz") //nolint:forbidigo // a test's
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	p.publish("evt-late") // accepted while clients learn that it stops
	close(finish)
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("the dispatcher did not end")
	}
	if p.err != nil {
		t.Errorf("exit: %v\n%s", p.err, &p.log)
	}
	p.start()
	eventually(t, "three delivered events", func() bool {
		done := 0
		for _, d := range p.deliveries() {
			if d.State == "Delivered" {
				done++
			}
			if d.Event.ID == "evt-hanging" && d.AttemptCount != 1 {
				t.Fatalf("the attempt under way was not finished: %+v", d)
			}
		}
		return done == 3
	})
}
