package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"sync"
	"syscall"
)

// process is a run of the binary.
type process struct {
	name    string
	command *exec.Cmd
	ended   chan struct{}

	mu   sync.Mutex
	log  bytes.Buffer
	api  string
	wait chan struct{} // closed once api is known
}

// processes are those that run.
var processes registry

type registry struct {
	mu      sync.Mutex
	running []*process
}

func (r *registry) add(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = append(r.running, p)
}

func (r *registry) all() []*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.running)
}

// run starts the binary with the given arguments.
func (e *environment) run(name string, args ...string) (*process, error) {
	return startProcess(name, e.binary, args...)
}

func startProcess(name, binary string, args ...string) (*process, error) {
	p := &process{name: name, command: exec.Command(binary, args...), ended: make(chan struct{}), wait: make(chan struct{})}
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := p.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	processes.add(p)
	go p.read(pipe)
	return p, nil
}

// read keeps what the process logs, and notes where it listens.
func (p *process) read(pipe io.Reader) {
	defer close(p.ended)
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct{ Msg, API string }
		_ = json.Unmarshal(lines.Bytes(), &entry) // some lines are no entries
		p.mu.Lock()
		p.log.Write(lines.Bytes())
		p.log.WriteByte('\n')
		if entry.API != "" && p.api == "" {
			p.api = entry.API
			close(p.wait)
		}
		p.mu.Unlock()
	}
	_ = p.command.Wait()
}

// address returns where the process serves the API, once it does.
func (p *process) address(ctx context.Context) (string, error) {
	select {
	case <-p.wait:
		return p.api, nil
	case <-p.ended:
		return "", fmt.Errorf("%s ended: %s", p.name, p.output())
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), errors.New(p.output()))
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// link is the way to the API server. It can be cut.
type link struct {
	target   string
	listener net.Listener

	mu   sync.Mutex
	down bool
	open map[net.Conn]struct{}
}

func newLink(target string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{target: target, listener: listener, open: map[net.Conn]struct{}{}}
	go l.serve()
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil || !l.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		go l.pipe(near, far)
		go l.pipe(far, near)
	}
}

func (l *link) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	for _, c := range conns {
		l.open[c] = struct{}{}
	}
	return true
}

func (l *link) pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, to)
	delete(l.open, from)
}

// cut resets every connection and refuses new ones until it is called with false.
func (l *link) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	for c := range l.open {
		_ = c.Close()
	}
}

func (l *link) close() { _ = l.listener.Close() }
