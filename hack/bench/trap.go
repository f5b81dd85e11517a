package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The trap is the receiver of hostile scenarios: its endpoints misbehave, cheaply for the trap, and each load is tallied
// by itself. Endpoints' paths are /<behaviour>/<group>/<number in the group>.
const (
	behaviourDrip = "drip" // a byte of the answer's headers a second
	behaviourBusy = "busy" // 429, Retry-After: 30
)

// trapAddresses is on how many loopback addresses the trap listens: a client has about 28,000 ports for each.
const trapAddresses = 8

var answerBusy = []byte("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")

// trapPlan is a load's plan; its first group has the number First.
type trapPlan struct {
	plan
	First int
}

// trapTally counts one load's deliveries.
type trapTally struct {
	*tally
	first int
}

// trap is the process's state.
type trap struct {
	healed atomic.Bool
	held   atomic.Int64 // requests that wait for an answer
	mu     sync.RWMutex
	loads  map[int]trapTally
}

func newTrap() *trap { return &trap{loads: map[int]trapTally{}} }

// runTrap is the trap as a process, which ends with its standard input.
func runTrap() error {
	debug.SetGCPercent(200)
	t := newTrap()
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addresses := []string{control.Addr().String()}
	for i := range trapAddresses {
		data, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", 2+i))
		if err != nil {
			return err
		}
		addresses = append(addresses, data.Addr().String())
		go func() { fail(t.accept(data)) }()
	}
	go func() { fail(serveHTTP(control, t.control())) }()
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (t *trap) accept(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go t.serve(conn)
	}
}

// trapBuffer is what a connection holds; the headers of a delivery have short lines.
const trapBuffer = 2 << 10

// serve answers the requests of a connection until the peer leaves.
func (t *trap) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, trapBuffer)
	var m message
	for {
		if err := readMessage(reader, &m); err != nil || m.length < 0 {
			return
		}
		// The id stands at the body's beginning. The rest, which may be large, is not kept.
		begin, err := reader.Peek(min(m.length, len(idPrefix)+idLength))
		if err != nil {
			return
		}
		answer := t.take(m.path(), begin)
		if _, err := reader.Discard(m.length); err != nil {
			return
		}
		if !t.answer(conn, reader, answer) {
			return
		}
	}
}

// answer sends what take returned, and reports whether the connection goes on.
func (t *trap) answer(conn net.Conn, reader *bufio.Reader, answer []byte) bool {
	if answer != nil && !bytes.Equal(answer, answerDrip) {
		_, err := conn.Write(answer)
		return err == nil
	}
	t.held.Add(1)
	defer t.held.Add(-1)
	if answer == nil {
		_, _ = reader.ReadByte() // until the peer leaves
		return false
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for i := range answer {
		if _, err := conn.Write(answer[i : i+1]); err != nil {
			return false
		}
		<-ticker.C
	}
	return false
}

// answerDrip takes longer to send than any timeout.
var answerDrip = []byte("HTTP/1.1 200 OK\r\nX-Drip: " + string(bytes.Repeat([]byte("x"), 100)) + "\r\nContent-Length: 0\r\n\r\n")

// take counts a delivery and returns the answer; nil means none at all.
func (t *trap) take(path, body []byte) []byte {
	now := time.Now()
	parts := bytes.SplitN(bytes.TrimPrefix(path, []byte("/")), []byte("/"), 3)
	id, ok := idOf(body)
	if len(parts) != 3 || !ok {
		return answerFail
	}
	group, err1 := strconv.Atoi(string(parts[1]))
	number, err2 := strconv.Atoi(string(parts[2]))
	if err1 != nil || err2 != nil {
		return answerFail
	}
	answer := answerOK
	switch string(parts[0]) {
	case behaviourOK:
	case behaviourSwitch:
		if !t.healed.Load() {
			answer = answerFail
		}
	case behaviourHang:
		answer = nil
	case behaviourDrip:
		answer = answerDrip
	case behaviourBusy:
		answer = answerBusy
	default:
		answer = answerFail
	}
	t.arrive(id, group, number, bytes.Equal(answer, answerOK), now)
	return answer
}

// arrive counts a delivery in its load's tally.
func (t *trap) arrive(id identity, group, number int, taken bool, now time.Time) {
	t.mu.RLock()
	load, ok := t.loads[id.run]
	t.mu.RUnlock()
	if !ok {
		return
	}
	endpoint := (group-load.first)*load.plan.Fan + number
	if group < load.first || number >= load.plan.Fan {
		endpoint = load.plan.Groups * load.plan.Fan // of no group: it went astray
	}
	load.tally.arrive(id, endpoint, taken, now)
}

func (t *trap) of(request *http.Request) (trapTally, bool) {
	run, _ := strconv.Atoi(request.FormValue("run"))
	t.mu.RLock()
	defer t.mu.RUnlock()
	load, ok := t.loads[run]
	return load, ok
}

// control serves what the generator asks the trap.
func (t *trap) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /begin", func(w http.ResponseWriter, request *http.Request) {
		var p trapPlan
		if err := json.NewDecoder(request.Body).Decode(&p); err != nil || p.Fan < 1 || p.Groups < 1 {
			http.Error(w, "not a plan", http.StatusBadRequest)
			return
		}
		load := trapTally{newTally(), p.First}
		load.begin(p.plan)
		t.mu.Lock()
		t.loads[p.Run] = load
		t.mu.Unlock()
	})
	mux.HandleFunc("POST /forget", func(http.ResponseWriter, *http.Request) {
		t.healed.Store(false)
		t.mu.Lock()
		clear(t.loads)
		t.mu.Unlock()
		debug.FreeOSMemory()
	})
	mux.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) { t.healed.Store(true) })
	mux.HandleFunc("GET /held", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(t.held.Load()) })
	tallied := func(pattern string, serve func(http.ResponseWriter, *http.Request, trapTally)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, request *http.Request) {
			if load, ok := t.of(request); ok {
				serve(w, request, load)
			} else {
				http.Error(w, "no such run", http.StatusNotFound)
			}
		})
	}
	tallied("GET /wait", func(_ http.ResponseWriter, request *http.Request, load trapTally) {
		arrived, _ := strconv.Atoi(request.FormValue("arrived"))
		load.wait(arrived, 0, request.Context().Done())
	})
	tallied("GET /tally", func(w http.ResponseWriter, _ *http.Request, load trapTally) {
		_ = json.NewEncoder(w).Encode(load.sum())
	})
	tallied("GET /arrivals", func(w http.ResponseWriter, _ *http.Request, load trapTally) { _, _ = w.Write(load.arrivals()) })
	return mux
}

// remoteTrap is the trap as the generator sees it.
type remoteTrap struct {
	*process
	control   string
	addresses []string
}

func startTrap(ctx context.Context) (*remoteTrap, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p, stdout, err := startPiped(ctx, self, "trap")
	if err != nil {
		return nil, err
	}
	var addresses []string
	if err := json.NewDecoder(stdout).Decode(&addresses); err != nil || len(addresses) < 2 {
		return nil, errors.Join(fmt.Errorf("read the trap's addresses: %w", err), p.kill())
	}
	return &remoteTrap{process: p, control: addresses[0], addresses: addresses[1:]}, nil
}

// url is where a subscription's deliveries go.
func (t *remoteTrap) url(behaviour string, group, number int) string {
	return fmt.Sprintf("http://%s/%s/%d/%d", t.addresses[(group+number)%len(t.addresses)], behaviour, group, number)
}

func (t *remoteTrap) begin(ctx context.Context, l *load) error {
	body, err := json.Marshal(trapPlan{plan: l.plan, First: l.first})
	if err != nil {
		return err
	}
	_, err = ask(ctx, http.MethodPost, "http://"+t.control+"/begin", body)
	return err
}

func (t *remoteTrap) post(ctx context.Context, what string) error {
	_, err := ask(ctx, http.MethodPost, "http://"+t.control+"/"+what, nil)
	return err
}

// get asks about a run; other parameters may follow.
func (t *remoteTrap) get(ctx context.Context, what string, run int, more url.Values) ([]byte, error) {
	values := url.Values{"run": {strconv.Itoa(run)}}
	for name, value := range more {
		values[name] = value
	}
	return ask(ctx, http.MethodGet, "http://"+t.control+"/"+what+"?"+values.Encode(), nil)
}

func (t *remoteTrap) held(ctx context.Context) (n int, err error) {
	body, err := t.get(ctx, "held", 0, nil)
	if err == nil {
		err = json.Unmarshal(body, &n)
	}
	return n, err
}

func (t *remoteTrap) tally(ctx context.Context, run int) (sum tallied, err error) {
	body, err := t.get(ctx, "tally", run, nil)
	if err == nil {
		err = json.Unmarshal(body, &sum)
	}
	return sum, err
}

// wait waits until so many deliveries of a run arrived; timeout is no error.
func (t *remoteTrap) wait(ctx context.Context, run, arrived int, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := t.get(limited, "wait", run, url.Values{"arrived": {strconv.Itoa(arrived)}})
	if limited.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}
