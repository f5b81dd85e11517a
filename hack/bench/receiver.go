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
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
)

// hang is how long an endpoint that hangs keeps a request: longer than a subscription's timeout.
const hang = 31 * time.Second

// The endpoints' paths are /<behaviour>/<number>.
const (
	behaviourOK     = "ok"     // 200
	behaviourFail   = "fail"   // 500
	behaviourHang   = "hang"   // no answer for longer than the timeout
	behaviourSwitch = "switch" // 500 until healed, then 200
)

// receiver is what all deliveries, the product's and the raw loop's, are posted to.
type receiver struct {
	tally  *tally
	healed atomic.Bool
}

// receive runs the receiver as a process: it prints the addresses that it listens on, and ends with its standard input,
// which is to say with its parent.
func receive(standard bool) error {
	debug.SetGCPercent(400)
	r := &receiver{tally: newTally()}
	data, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if standard {
		go func() { fail(serveHTTP(data, http.HandlerFunc(r.handle))) }()
	} else {
		go func() { fail(r.accept(data)) }()
	}
	go func() { fail(serveHTTP(control, r.control())) }()
	if err := json.NewEncoder(os.Stdout).Encode([]string{data.Addr().String(), control.Addr().String()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench receiver:", err)
	os.Exit(1)
}

func serveHTTP(l net.Listener, handler http.Handler) error {
	return (&http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func (r *receiver) accept(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go r.serve(conn)
	}
}

var (
	answerOK   = []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	answerFail = []byte("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
)

// serve answers the requests of a connection until the peer leaves.
func (r *receiver) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, 8<<10)
	var m message
	body := make([]byte, 0, 2*bodySize)
	for {
		if err := readMessage(reader, &m); err != nil {
			return
		}
		var err error
		if body, err = readBody(reader, &m, body); err != nil {
			return
		}
		answer := answerFail
		switch taken, hung := r.take(m.path(), body); {
		case hung:
			<-time.After(hang)
			return
		case taken:
			answer = answerOK
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// handle is serve, on top of net/http.
func (r *receiver) handle(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	switch taken, hung := r.take([]byte(request.URL.Path), body); {
	case hung:
		select {
		case <-time.After(hang):
		case <-request.Context().Done():
		}
	case !taken:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// take counts a delivery, and tells how its endpoint answers.
func (r *receiver) take(path, body []byte) (taken, hung bool) {
	now := time.Now()
	behaviour, number, _ := bytes.Cut(bytes.TrimPrefix(path, []byte("/")), []byte("/"))
	endpoint, err := strconv.Atoi(string(number))
	id, ok := idOf(body)
	if err != nil || !ok {
		return false, false
	}
	switch string(behaviour) {
	case behaviourOK:
		taken = true
	case behaviourSwitch:
		taken = r.healed.Load()
	case behaviourHang:
		return false, true
	}
	r.tally.arrive(id, endpoint, taken, now)
	return taken, false
}

// control serves what the generator asks the receiver.
func (r *receiver) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /begin", func(w http.ResponseWriter, request *http.Request) {
		var p plan
		if err := json.NewDecoder(request.Body).Decode(&p); err != nil || p.Fan < 1 || p.Groups < 1 {
			http.Error(w, "not a plan", http.StatusBadRequest)
			return
		}
		r.healed.Store(false)
		r.tally.begin(p)
	})
	mux.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) { r.healed.Store(true) })
	mux.HandleFunc("GET /wait", func(_ http.ResponseWriter, request *http.Request) {
		arrived, _ := strconv.Atoi(request.FormValue("arrived"))
		failed, _ := strconv.Atoi(request.FormValue("failed"))
		r.tally.wait(arrived, failed, request.Context().Done())
	})
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(r.tally.sum()) })
	mux.HandleFunc("GET /arrivals", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(r.tally.arrivals()) })
	return mux
}

// remote is the receiver's process as the generator sees it.
type remote struct {
	*process
	address, controlAddress string
}

// startReceiver starts a receiver's process.
func startReceiver(ctx context.Context, standard bool) (*remote, error) {
	arguments := []string{"receiver"}
	if standard {
		arguments = append(arguments, "standard")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p, stdout, err := startPiped(ctx, self, arguments...)
	if err != nil {
		return nil, err
	}
	var addresses []string
	if err := json.NewDecoder(stdout).Decode(&addresses); err != nil || len(addresses) != 2 {
		return nil, errors.Join(fmt.Errorf("read the receiver's addresses: %w", err), p.kill())
	}
	return &remote{process: p, address: addresses[0], controlAddress: addresses[1]}, nil
}

func (r *remote) begin(ctx context.Context, p plan) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = ask(ctx, http.MethodPost, "http://"+r.controlAddress+"/begin", body)
	return err
}

func (r *remote) heal(ctx context.Context) error {
	_, err := ask(ctx, http.MethodPost, "http://"+r.controlAddress+"/heal", nil)
	return err
}

// wait waits until so many deliveries arrived and so many were refused; timeout is no error.
func (r *remote) wait(ctx context.Context, arrived, failed int, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := ask(limited, http.MethodGet, fmt.Sprintf("http://%s/wait?arrived=%d&failed=%d", r.controlAddress, arrived, failed), nil)
	if limited.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

func (r *remote) tally(ctx context.Context) (t tallied, err error) {
	body, err := ask(ctx, http.MethodGet, "http://"+r.controlAddress+"/tally", nil)
	if err == nil {
		err = json.Unmarshal(body, &t)
	}
	return t, err
}

func (r *remote) arrivals(ctx context.Context) ([]byte, error) {
	return ask(ctx, http.MethodGet, "http://"+r.controlAddress+"/arrivals", nil)
}

var asking = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}

// ask makes one request to a process of the bench, or to the dispatcher's operations address.
func ask(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := asking.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", method, request.URL.Path, response.Status)
	}
	return answer, err
}
