package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// killAfter is how long a process may take to stop.
	killAfter = 45 * time.Second
	// tailLines is how much of a log is kept to be shown.
	tailLines = 15
)

// ownGroup keeps Ctrl-C of the terminal from children: they are stopped in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// environment is this process's, without what would tell the children something else than their arguments.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "EVENTFLOW_") || strings.HasPrefix(v, "KUBECONFIG=") })
}

// process is a child that runs until it is stopped.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}

	mu    sync.Mutex
	lines []string
}

// start starts a child. Each line that it writes is handed to watch, which may be nil. That it ends before it is stopped
// is told to s.died.
func (s *session) start(name string, watch func(line string), program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), exited: make(chan struct{})} //nolint:noctx // stop ends it, in order
	p.cmd.Dir, p.cmd.SysProcAttr = s.dir, ownGroup()
	p.cmd.Env = environment()
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the %s: %w", name, err), reader.Close(), writer.Close(), log.Close())
	}
	_ = writer.Close() // the child has its own
	stopping := make(chan struct{})
	go func() {
		p.read(reader, log, watch)
		err := p.cmd.Wait()
		close(p.exited)
		select {
		case <-stopping:
		default:
			s.died <- fmt.Errorf("the %s ended: %w", name, errors.Join(err, errors.New("it was not told to")))
		}
	}()
	s.cleanup(func(ctx context.Context) error {
		close(stopping)
		return p.stop(ctx)
	})
	return p, nil
}

func (p *process) read(pipe io.ReadCloser, log io.WriteCloser, watch func(string)) {
	defer func() { _, _ = pipe.Close(), log.Close() }()
	scanner := bufio.NewScanner(pipe)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		_, _ = fmt.Fprintln(log, scanner.Text()) // what is shown is kept below
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		if len(p.lines) > tailLines {
			p.lines = p.lines[1:]
		}
		p.mu.Unlock()
		if watch != nil {
			watch(scanner.Text())
		}
	}
}

// tail is the end of what the process wrote.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// stop asks the process to end, and ends it if it does not.
func (p *process) stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	case <-time.After(killAfter):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	return fmt.Errorf("the %s did not stop in time, and was killed", p.name)
}
