package demo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/config/samples"
)

// TestDemo is "eventflow demo --once": each sample event arrives, signed, on the machine's own endpoint.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	command := Command("test")
	shown := &strings.Builder{}
	command.SetOut(shown)
	command.SetArgs([]string{"--once"})
	began := time.Now()
	if err := command.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	set, err := samples.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(regexp.MustCompile(`200 +/\S+ +\S+ +\S+ +attempt 1 +signatures ok\n`).FindAllString(shown.String(), -1)); got != len(set.Events) || got == 0 {
		t.Errorf("%d deliveries shown, want %d\n%s", got, len(set.Events), shown)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v: nobody waits for that", took)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

// TestDemoTellsHowToGoOn follows the instructions, and then interrupts.
func TestDemoTellsHowToGoOn(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(run(ctx, &options{listen: "127.0.0.1:0", out: writer}), writer.Close()) }()
	text := &strings.Builder{}
	buffer := make([]byte, 4096)
	url := regexp.MustCompile(`curl (http://\S+/deliveries)\n`)
	for !url.MatchString(text.String()) {
		n, err := reader.Read(buffer)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		text.Write(buffer[:n])
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url.FindStringSubmatch(text.String())[1], http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"Delivered"`) {
		t.Errorf("%d %s, error %v", response.StatusCode, body, err)
	}
	interrupt()
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	if err := <-ended; err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestDemoSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"an address in use": {args: []string{"--listen=256.0.0.1:1"}, want: "--listen"},
		"a negative number": {args: []string{"--fail-first=-1"}, want: "--fail-first"},
		"an argument":       {args: []string{"now"}, want: "now"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := Command("test")
			command.SilenceUsage, command.SilenceErrors = true, true
			command.SetOut(io.Discard)
			command.SetArgs(tc.args)
			if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
