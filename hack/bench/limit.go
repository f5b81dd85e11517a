package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// watchEvery is how often a limited process is looked at. A process that allocates 1 GiB a second passes its limit by
// 10 MiB at most before it is killed.
const watchEvery = 10 * time.Millisecond

// limit bounds a dispatcher's memory. Given a folder of cgroups (version 2, or the memory controller of version 1), the
// kernel enforces it. Without one the bench does: it kills a process whose resident memory passes the limit, and tells
// the process its limit by GOMEMLIMIT, as a container's manifest would. A nil limit bounds nothing.
type limit struct {
	parent string // folder of cgroups; the bench enforces the limit if empty
	bytes  int64

	mu      sync.Mutex
	folder  string // this limit's cgroup
	peak    int64  // resident bytes
	sockets int
	killed  int
	watches sync.WaitGroup
}

// memoryLimit is that of hostile scenarios.
const memoryLimit = 1 << 30

// start starts a process under the limit, again after it ended.
func (l *limit) start(cmd *exec.Cmd) error {
	if l == nil {
		return cmd.Start()
	}
	if l.parent == "" {
		cmd.Env = append(cmd.Env, "GOMEMLIMIT="+strconv.FormatInt(l.bytes/10*9, 10))
	} else if err := l.makeGroup(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	if l.folder != "" {
		if err := writeGroup(l.folder, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return err
		}
	}
	l.watches.Go(func() { l.watch(pid) })
	return nil
}

// makeGroup makes the cgroup, once.
func (l *limit) makeGroup() error {
	if l.folder != "" {
		return nil
	}
	folder, err := os.MkdirTemp(l.parent, "eventflow-bench-")
	if err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	l.folder = folder
	return setMemory(folder, l.bytes)
}

// setMemory sets the limit of a cgroup, of either version. It fails where the folder is none: written files would look the
// same, and limit nothing.
func setMemory(folder string, bytes int64) error {
	for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // versions 2 and 1
		if _, err := os.Stat(filepath.Join(folder, file)); err == nil {
			return writeGroup(folder, file, strconv.FormatInt(bytes, 10))
		}
	}
	return fmt.Errorf("%s is no cgroup with a limit of memory: with version 1, name the memory controller's folder, such as /sys/fs/cgroup/memory", filepath.Dir(folder))
}

// writeGroup writes a file that a cgroup has; it makes none.
func writeGroup(folder, file, text string) error {
	f, err := os.OpenFile(filepath.Join(folder, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("set up a cgroup: %w", err)
	}
	_, err = f.WriteString(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("set up a cgroup: %w", err)
	}
	return nil
}

// watch follows a process until it ends.
func (l *limit) watch(pid int) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	p := &process{pid: pid}
	page := int64(os.Getpagesize())
	for n := 0; ; n++ {
		fields := statFields(pid)
		if len(fields) < 22 || fields[0] == "Z" {
			return
		}
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		resident := pages * page
		sockets := 0
		if n%100 == 0 {
			sockets = p.sockets()
		}
		l.mu.Lock()
		l.peak, l.sockets = max(l.peak, resident), max(l.sockets, sockets)
		over := l.parent == "" && resident > l.bytes
		if over {
			l.killed++
		}
		l.mu.Unlock()
		if over {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
		<-ticker.C
	}
}

// end waits for the watches of processes that ended, and removes the cgroup.
func (l *limit) end() {
	if l == nil {
		return
	}
	l.watches.Wait()
	if l.folder != "" {
		_ = os.Remove(l.folder) // rmdir: a cgroup's files go with it
	}
}

// kills is how often a process was killed for its memory.
func (l *limit) kills() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.folder == "" {
		return l.killed
	}
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(l.folder, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "oom_kill" {
				n, _ := strconv.Atoi(fields[1])
				return n
			}
		}
	}
	return 0
}

// report adds what the process held at most.
func (l *limit) report(m *measured, prefix string) {
	kills := l.kills()
	l.mu.Lock()
	defer l.mu.Unlock()
	m.add(prefix+"peak resident (% of the limit)", float64(l.peak)/float64(l.bytes)*100)
	m.add(prefix+"most sockets", float64(l.sockets))
	m.add(prefix+"killed for memory", float64(kills))
}

// raiseDescriptors lets this process, and those that it starts, open as many descriptors as the system allows, up to
// want. It returns how many that is.
func raiseDescriptors(want uint64) uint64 {
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		return 0
	}
	if have.Cur >= want {
		return have.Cur
	}
	if raised := (syscall.Rlimit{Cur: want, Max: max(want, have.Max)}); syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
		return want
	}
	// Only root may go beyond the hard limit. Setting it is not without effect: Go hands the soft limit that it found to
	// its children, unless it was set.
	if raised := (syscall.Rlimit{Cur: min(want, have.Max), Max: have.Max}); syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
		return raised.Cur
	}
	return have.Cur
}

// pause waits, or returns ctx's error if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
