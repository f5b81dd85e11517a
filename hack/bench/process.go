package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one that the bench started, or itself.
type process struct {
	pid   int
	cmd   *exec.Cmd
	stdin io.Closer // a receiver ends when it is closed
}

// startPiped starts a program whose standard input and output are pipes.
func startPiped(ctx context.Context, program string, arguments ...string) (*process, io.Reader, error) {
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return &process{pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}, stdout, nil
}

// kill ends the process at once, as kill -9 does.
func (p *process) kill() error {
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it says that it was killed
	return err
}

// clockTick is how the kernel counts CPU time (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpu is how much CPU time the process has used.
func (p *process) cpu() time.Duration {
	fields := statFields(p.pid)
	if len(fields) < 13 {
		return 0
	}
	return ticks(fields[11]) + ticks(fields[12])
}

// statFields are those of /proc/PID/stat behind the command's name.
func statFields(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

func ticks(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * clockTick
}

// resident is the process's memory, and the most that it had, in MiB.
func (p *process) resident() (now, peak float64) {
	return statusMiB(p.pid, "VmRSS:"), statusMiB(p.pid, "VmHWM:")
}

func statusMiB(pid int, name string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kilobytes, _ := strconv.ParseFloat(fields[0], 64)
	return kilobytes / 1024
}

// sockets is how many the process has open.
func (p *process) sockets() int {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid))
	if err != nil {
		return 0
	}
	n := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// machineBusy is how much CPU time all processes together have used, that of other guests of the host included.
func machineBusy() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var busy time.Duration
	for i, field := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal
			busy += ticks(field)
		}
	}
	return busy
}

// machine describes where a result comes from, without naming it.
type machine struct {
	CPU, Kernel, Go   string
	Cores             int
	MemoryMiB         float64
	FileSystem        string
	FsyncMicroseconds quantilesMicro
}

type quantilesMicro struct{ P50, P99 float64 }

// describeMachine measures what an fsync costs in dir, too: every acknowledgement waits for one.
func describeMachine(dir, goVersion string, cores int) (machine, error) {
	m := machine{Go: goVersion, Cores: cores, CPU: procValue("/proc/cpuinfo", "model name"), FileSystem: fileSystem(dir)}
	if total := strings.Fields(procValue("/proc/meminfo", "MemTotal")); len(total) > 0 {
		kilobytes, _ := strconv.ParseFloat(total[0], 64)
		m.MemoryMiB = kilobytes / 1024
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, fmt.Errorf("describe the machine: %w", err)
	}
	m.Kernel = strings.TrimSpace(string(release))
	m.FsyncMicroseconds, err = measureFsync(dir)
	return m, err
}

func procValue(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem names the kind of file system of dir. On one that is memory, an fsync is free and a result worth nothing.
func fileSystem(dir string) string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return "unknown"
	}
	switch stat.Type {
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0x01021994:
		return "tmpfs"
	case 0x794c7630:
		return "overlayfs"
	default:
		return fmt.Sprintf("%#x", stat.Type)
	}
}

func measureFsync(dir string) (q quantilesMicro, err error) {
	file, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	const count = 300
	took := make([]time.Duration, 0, count)
	for block := make([]byte, 4096); len(took) < count; {
		if _, err := file.Write(block); err != nil {
			return q, err
		}
		start := time.Now()
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return q, err
		}
		took = append(took, time.Since(start))
	}
	all := quantilesOf(took)
	return quantilesMicro{P50: all.P50 * 1000, P99: all.P99 * 1000}, nil
}
