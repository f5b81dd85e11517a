package memory

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const manifest = `apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: sub-%d, namespace: clinic-a}
spec:
  url: http://%s/
  events: ["*"]
  timeout: 60s
  signing: {secretRef: {name: keys, key: current}}
---
`

const secret = `apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: clinic-a}
stringData: {current: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
`

// process is a dispatcher in a cgroup.
type process struct {
	*testing.T
	command *exec.Cmd
	api     string
	ended   chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// build builds the dispatcher, and returns the binary.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "eventflow")
	command := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../..")
	command.Env = append(os.Environ(), "CGO_ENABLED=0") // as the image has it
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return binary
}

// start starts a dispatcher with the given number of subscriptions, whose endpoint never answers.
func start(ctx context.Context, t *testing.T, binary string, limit int64, subscriptions int) *process {
	t.Helper()
	group, dir := newCgroup(t, limit), t.TempDir()
	routes := filepath.Join(dir, "routes")
	var text strings.Builder
	endpoint := silent(t)
	for i := range subscriptions {
		fmt.Fprintf(&text, manifest, i, endpoint)
	}
	text.WriteString(secret)
	if err := os.Mkdir(routes, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(routes, "all.yaml"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{T: t, ended: make(chan struct{})}
	p.command = exec.Command("/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, group.procs, binary, "dispatcher", "--routes="+routes,
		"--store=pebble:"+filepath.Join(dir, "store"), "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0",
		"--ingest-auth=none", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8", "--drain-delay=0s")
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := p.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(pipe)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry struct{ API string }
			_ = json.Unmarshal(lines.Bytes(), &entry) // some lines are no entries
			p.mu.Lock()
			fmt.Fprintf(&p.log, "%s\n", lines.Bytes())
			p.mu.Unlock()
			if entry.API != "" {
				ready <- entry.API
			}
		}
		_ = p.command.Wait()
	}()
	t.Cleanup(func() { _ = p.command.Process.Kill(); <-p.ended })
	select {
	case p.api = <-ready:
	case <-p.ended:
		t.Fatalf("the dispatcher ended: %s", p.output())
	case <-ctx.Done():
		t.Fatalf("the dispatcher does not get ready: %s", p.output())
	}
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// silent is the address of an endpoint that accepts, and never answers.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	return listener.Addr().String()
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peak is the most memory that was resident, in bytes.
func (p *process) peak() int64 {
	p.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		p.Fatalf("the dispatcher is gone: %v: %s", err, p.output())
	}
	match := highWater.FindSubmatch(status)
	if match == nil {
		p.Skip("the system does not tell the most memory that was resident")
	}
	kilobytes, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err != nil {
		p.Fatal(err)
	}
	return kilobytes << 10
}

// wait waits for d, or returns false once ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
