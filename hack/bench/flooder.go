package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of attacks on the publish API.
const (
	attackUploads = "uploads" // bodies that stall
	attackIdle    = "idle"    // connections that send nothing
	attackHeaders = "headers" // headers that stall half-way
	attackTokens  = "tokens"  // requests with tokens that nobody issued
)

// attack is what flooders do. A flooder is a process of its own, because it needs descriptors of its own.
type attack struct {
	Kind, Target, Namespace string
	From                    []string // local addresses
	Connections             int
}

// flooded is what came of it.
type flooded struct {
	Opened, Open, Refused int64 // connections; refused ones could not be opened
	Answers               map[int]int64
}

// flooder is the process's state.
type flooder struct {
	attack
	opened, open, refused atomic.Int64
	dialing               chan struct{}
	tokens                atomic.Int64
	mu                    sync.Mutex
	answers               map[int]int64
}

// runFlood runs an attack, which the argument describes, until standard input ends; then it prints what came of it.
func runFlood(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("flood wants one argument")
	}
	f := &flooder{dialing: make(chan struct{}, 256), answers: map[int]int64{}}
	if err := json.Unmarshal([]byte(arguments[0]), &f.attack); err != nil {
		return fmt.Errorf("read the attack: %w", err)
	}
	raiseDescriptors(wantDescriptors)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range f.Connections {
		go f.again(ctx, i)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f.sum())
}

func (f *flooder) sum() flooded {
	f.mu.Lock()
	defer f.mu.Unlock()
	return flooded{Opened: f.opened.Load(), Open: f.open.Load(), Refused: f.refused.Load(), Answers: f.answers}
}

// again keeps the ith connection up: an attacker that is thrown out comes back.
func (f *flooder) again(ctx context.Context, i int) {
	for ctx.Err() == nil {
		f.dialing <- struct{}{}
		conn, err := dial(f.From[i%len(f.From)], f.Target)
		<-f.dialing
		if err != nil {
			f.refused.Add(1)
		} else {
			f.opened.Add(1)
			f.open.Add(1)
			f.hold(ctx, conn, i)
			f.open.Add(-1)
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// hold attacks on a connection until the dispatcher closes it.
func (f *flooder) hold(ctx context.Context, conn net.Conn, i int) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, 1<<10)
	switch f.Kind {
	case attackUploads:
		if pause(ctx, time.Duration(i%len(stallParts))*stallStep) == nil {
			f.stall(conn, i)
		}
	case attackHeaders:
		_, _ = fmt.Fprintf(conn, "POST /v1/namespaces/%s/events HTTP/1.1\r\nHost: bench\r\nX-Long: %s", f.Namespace, strings.Repeat("x", 30<<10))
	case attackTokens:
		for f.junk(conn, reader) {
		}
		return
	}
	f.read(reader)
}

// read reads an answer, if one comes before the connection ends, and the end.
func (f *flooder) read(reader *bufio.Reader) {
	var m message
	if readMessage(reader, &m) == nil {
		f.note(&m)
	}
	_, _ = io.Copy(io.Discard, reader)
}

func (f *flooder) note(m *message) {
	code, err := m.status()
	if err != nil {
		return
	}
	f.mu.Lock()
	f.answers[code]++
	f.mu.Unlock()
}

// stallParts are how much of a body is sent before it stalls: a buffer that grows in steps of eight has just grown. The
// small ones come later, by stallStep each, and fill what the large ones leave.
var stallParts = []int{1<<20 + 1, 128<<10 + 1, 8<<10 + 1, 1}

const stallStep = 300 * time.Millisecond

// stall sends a part of a body.
func (f *flooder) stall(conn net.Conn, i int) {
	part := stallParts[i%len(stallParts)]
	length := min(8*part, 8<<20)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, _ = fmt.Fprintf(conn, "POST /v1/namespaces/%s/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", f.Namespace, length)
	_, _ = conn.Write(make([]byte, part))
}

// junk publishes with a new token and reports whether the connection goes on.
func (f *flooder) junk(conn net.Conn, reader *bufio.Reader) bool {
	unique := fmt.Sprintf("junk-%d-%d", os.Getpid(), f.tokens.Add(1))
	token := shapeToken(f.Namespace, "publisher", unique)
	request := post{namespace: f.Namespace, token: token, data: []byte("{}")}.append(nil, []identity{{sent: time.Now()}}, false)
	if _, err := conn.Write(request); err != nil {
		return false
	}
	var m message
	if err := readMessage(reader, &m); err != nil {
		return false
	}
	f.note(&m)
	_, err := readBody(reader, &m, nil)
	return err == nil
}

// flooding is a running attack as the generator sees it.
type flooding struct {
	processes []*process
	answers   []io.Reader
	group     string // cgroup of the processes; none if empty
}

// startFlood starts an attack in as many processes as it needs descriptors.
func (b *bench) startFlood(ctx context.Context, a attack) (*flooding, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	f := &flooding{}
	if b.floods != "" {
		if f.group, err = idleGroup(b.floods); err != nil {
			return nil, err
		}
	}
	most := max(1, int(b.descriptors)*9/10)
	for rest := a.Connections; rest > 0; rest -= most {
		a.Connections = min(rest, most)
		text, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		p, stdout, err := startPiped(ctx, self, "flood", string(text))
		if err != nil {
			return nil, errors.Join(err, f.stop(nil))
		}
		f.processes, f.answers = append(f.processes, p), append(f.answers, stdout)
		if f.group != "" {
			if err := p.join(f.group); err != nil {
				return nil, errors.Join(err, f.stop(nil))
			}
		}
	}
	return f, nil
}

// stop ends the attack and adds up what came of it.
func (f *flooding) stop(sum *flooded) error {
	var errs []error
	for i, p := range f.processes {
		var one flooded
		_ = p.stdin.Close()
		err := json.NewDecoder(f.answers[i]).Decode(&one)
		errs = append(errs, err, p.kill())
		if sum == nil {
			continue
		}
		sum.Opened, sum.Open, sum.Refused = sum.Opened+one.Opened, sum.Open+one.Open, sum.Refused+one.Refused
		for code, n := range one.Answers {
			if sum.Answers == nil {
				sum.Answers = map[int]int64{}
			}
			sum.Answers[code] += n
		}
	}
	f.processes = nil
	if f.group != "" {
		errs = append(errs, os.Remove(f.group))
	}
	return errors.Join(errs...)
}

// String says it in a line.
func (f flooded) String() string {
	return fmt.Sprintf("%d connections at the end, %d opened, %d could not be; answers: %v, of them %d with %s",
		f.Open, f.Opened, f.Refused, f.Answers, f.Answers[http.StatusAccepted], http.StatusText(http.StatusAccepted))
}
