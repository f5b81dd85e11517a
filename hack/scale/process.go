package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// killAfter is how long a process may take to stop.
	killAfter = 30 * time.Second
	// clockTick is how the kernel counts CPU time (USER_HZ).
	clockTick = 10 * time.Millisecond
	// tailBytes is how much of a log is shown after a failure.
	tailBytes = 2000
)

// process is one that this program started.
type process struct {
	name   string
	pid    int
	cmd    *exec.Cmd // nil for those of the control plane
	exited chan struct{}
	log    string
}

// start starts a program whose output goes to a file of its name.
func start(dir, name, program string, arguments ...string) (*process, error) {
	log := filepath.Join(dir, name+".log")
	file, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, arguments...) //nolint:noctx // stop ends it, in order
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C of the terminal is for this program
	if err := errors.Join(cmd.Start(), file.Close()); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid, cmd: cmd, exited: make(chan struct{}), log: log}
	go func() {
		_ = cmd.Wait() // that it was stopped is no error
		close(p.exited)
	}()
	return p, nil
}

// stop asks the process to end, and ends it if it does not.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
		return nil
	case <-time.After(killAfter):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	return fmt.Errorf("the %s did not stop in time, and was killed", p.name)
}

// alive fails if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("the %s ended: %s", p.name, p.tail())
	default:
		return nil
	}
}

// tail is the end of what the process wrote.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}

// child finds a process of the control plane, which envtest started.
func child(name string) (*process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := bytes.Cut(stat, []byte(" ("))
		command := rest[:max(0, bytes.LastIndexByte(rest, ')'))]
		fields := strings.Fields(string(rest[len(command):]))
		if string(command) != name || len(fields) < 3 || fields[2] != strconv.Itoa(os.Getpid()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(folder))
		return &process{name: name, pid: pid}, err
	}
	return nil, fmt.Errorf("find the process of %s", name)
}

// cpu is how much CPU time the process has used.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	return ticks(fields[11]) + ticks(fields[12])
}

func ticks(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * clockTick
}

// resident is the process's memory, and the most that it had, in MiB.
func (p *process) resident() (now, peak float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, 0
	}
	value := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), name)
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		kilobytes, _ := strconv.ParseFloat(fields[0], 64)
		return kilobytes / 1024
	}
	return value("VmRSS:"), value("VmHWM:")
}

// usage is what one process used during a row.
type usage struct {
	CPUSeconds      float64
	ResidentMiB     float64
	ResidentPeakMiB float64
	cpuBefore       time.Duration
}

// until polls check until it is done, an error comes, or the time is over.
func until(ctx context.Context, limit, pause time.Duration, what string, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		done, err := check()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, ctx.Err())
		case <-tick.C:
		}
	}
}
