package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// transcript is what a run shows.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestRun is make run, up to Ctrl-C, with the commands that it tells to type.
func TestRun(t *testing.T) {
	t.Parallel()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set; make test sets it")
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	shown := &transcript{}
	var processes []*process
	var dir, typed string
	var failure error
	err := run(ctx, options{out: shown, progress: io.Discard, running: func(s *session) {
		defer interrupt()
		processes, dir = []*process{s.manager, s.dispatcher, s.receiver}, s.dir
		typed, failure = typeInstructions(t, s)
	}})
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	if failure != nil || !strings.Contains(typed, `HTTP/1.1 202`) || !strings.Contains(typed, `"deliveries":1}`) || !strings.Contains(typed, "EndpointHealthy") {
		t.Errorf("what it told to type: %v\n%s", failure, typed)
	}
	for subscription, eventType := range map[string]string{
		"sms-reminders": "appointment.created", "billing-sync": "encounter.updated", "care-team-alerts": "observation.created",
		"patient-onboarding": "patient.created", "pharmacy-alerts": "prescription.created",
	} {
		for _, want := range []string{
			`200  /` + subscription + ` +` + eventType + ` +\S+ +attempt 1  signatures ok\n`,
			subscription + ` +True +Ready +True +0 +0 `,
		} {
			if !regexp.MustCompile(want).MatchString(shown.String()) {
				t.Errorf("not shown: %s", want)
			}
		}
	}
	if t.Failed() {
		t.Log(shown)
	}
	for _, p := range processes {
		if err := syscall.Kill(p.cmd.Process.Pid, 0); err == nil {
			t.Errorf("the %s still runs", p.name)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left behind", dir)
	}
}

// typeInstructions types what the run tells to.
func typeInstructions(t *testing.T, s *session) (string, error) {
	t.Helper()
	var script strings.Builder
	for line := range strings.Lines(s.instructions()) {
		if strings.HasPrefix(line, "  ") {
			script.WriteString(line)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-e")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(s.kubectl)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRefused(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), options{out: io.Discard, progress: io.Discard, cluster: "nearby"})
	if err == nil || !strings.Contains(err.Error(), `no cluster "nearby"`) {
		t.Errorf("error %v", err)
	}
}
