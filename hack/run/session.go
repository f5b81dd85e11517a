package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/clinikapi/eventflow/config/samples"
	"github.com/clinikapi/eventflow/hack/run/progress"
)

const (
	systemNamespace = "eventflow-system"
	sampleNamespace = "clinic-a"
	// current is the cluster that KUBECONFIG names.
	current = "current"
	// stopTimeout bounds the cleaning up.
	stopTimeout = 90 * time.Second
)

// session is all that one run has started, and has to stop.
type session struct {
	options
	root       string // of the checkout
	dir        string // of everything temporary
	kubectl    string
	kubeconfig string // of the administrator
	manifests  []byte // of what was installed
	samples    *samples.Set

	screen   progress.Screen
	cleanups []func(context.Context) error
	died     chan error

	manager    *process
	dispatcher *process
	receiver   *process
	api        string // the dispatcher's address
	endpoint   string // the receiver's URL
	received   chan string
}

// run does it all. It returns nil if it was interrupted, or came to its end.
func run(ctx context.Context, o options) (err error) {
	s := &session{options: o, screen: progress.Screen{Out: o.out}, died: make(chan error, 8), received: make(chan string, 1024)}
	defer func() {
		if ctx.Err() != nil && err != nil {
			err = nil // it is what it was interrupted by
		}
		err = errors.Join(err, s.stop(context.WithoutCancel(ctx)))
	}()
	if o.cluster != "" && o.cluster != current {
		return fmt.Errorf("there is no cluster %q: leave it out for a control plane on this machine, or say %q", o.cluster, current)
	}
	if s.samples, err = samples.Read(); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"build eventflow (the first time, the libraries too)", s.build},
		{"start the control plane", s.startControlPlane},
		{"install the resource definitions and the RBAC rules", s.install},
		{"start the manager", s.startManager},
		{"create the WebhookDispatcher, and start what its pod would be", s.startDispatcher},
		{"start the demo receiver", s.startReceiver},
		{"apply config/samples, and wait until they are Ready", s.applySamples},
	} {
		if err := s.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	if err := s.demonstrate(ctx); err != nil || s.once {
		return err
	}
	if s.then != "" {
		return s.follow(ctx)
	}
	return s.wait(ctx)
}

// follow runs the program that -then names, with kubectl in its path.
func (s *session) follow(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, s.then)
	cmd.Dir, cmd.SysProcAttr = s.root, ownGroup()
	cmd.Stdout, cmd.Stderr = s.out, s.progress
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // what it started, too
	cmd.WaitDelay = killAfter
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig, "EVENTFLOW="+s.binary(), "DISPATCHER=http://"+s.api,
		"PATH="+filepath.Dir(s.kubectl)+":"+os.Getenv("PATH"))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", s.then, err)
	}
	return nil
}

// prepare finds the checkout and makes the folder for everything temporary.
func (s *session) prepare(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find the checkout: %w", err)
	}
	s.root = filepath.Dir(strings.TrimSpace(string(out)))
	if s.dir, err = os.MkdirTemp("", "eventflow-run-"); err != nil {
		return err
	}
	s.cleanup(func(context.Context) error { return os.RemoveAll(s.dir) })
	return nil
}

func (s *session) build(ctx context.Context) error {
	_, err := s.command(ctx, nil, "go", "build", "-o", s.binary(), ".")
	return err
}

func (s *session) binary() string { return filepath.Join(s.dir, "eventflow") }

// step does a part, and shows the logs if it fails.
func (s *session) step(ctx context.Context, name string, do func(context.Context) error) error {
	err := s.screen.Step(ctx, name, do)
	if err != nil && ctx.Err() == nil {
		s.showLogs()
	}
	return err
}

// wait returns when it is interrupted, or a process has died.
func (s *session) wait(ctx context.Context) error {
	if s.running != nil {
		s.running(s)
	}
	select {
	case <-ctx.Done():
		s.say("\n• stop, and clean up")
		return nil
	case err := <-s.died:
		s.showLogs()
		return err
	}
}

// cleanup registers what stop has to do; the last comes first.
func (s *session) cleanup(do func(context.Context) error) { s.cleanups = append(s.cleanups, do) }

func (s *session) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var errs []error
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, s.cleanups[i](ctx))
	}
	s.cleanups = nil
	return errors.Join(errs...)
}

// say shows a line.
func (s *session) say(format string, args ...any) { s.screen.Say(format, args...) }

// command runs a program in the checkout and returns its output. Its error holds what it said.
func (s *session) command(ctx context.Context, input io.Reader, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = s.root, input
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig)
	if s.kubeconfig == "" {
		cmd.Env = os.Environ()
	}
	cmd.SysProcAttr = ownGroup()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// kube runs kubectl as the administrator.
func (s *session) kube(ctx context.Context, args ...string) ([]byte, error) {
	return s.command(ctx, nil, s.kubectl, args...)
}

// apply applies manifests as the administrator.
func (s *session) apply(ctx context.Context, manifests []byte) error {
	_, err := s.command(ctx, bytes.NewReader(manifests), s.kubectl, "apply", "--server-side", "-f", "-")
	return err
}

// showLogs shows the end of what the processes logged.
func (s *session) showLogs() {
	for _, p := range []*process{s.manager, s.dispatcher, s.receiver} {
		if p != nil {
			s.say("--- the end of the %s's log:\n%s", p.name, p.tail())
		}
	}
}
