package profile

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLoopbackAlone: profiles are served to the machine itself and to nobody else.
func TestLoopbackAlone(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"0.0.0.0:0": "no loopback address", ":0": "no loopback address", "[::]:0": "no loopback address", "10.0.0.1:6060": "no loopback address",
		"example.com:80": "no loopback address", "6060": "want a loopback address", "127.0.0.1:99999": "--pprof-listen",
	} {
		stop, err := Options{Address: address}.Start(t.Context(), logr.Discard())
		if err == nil {
			stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", address, err)
		}
	}
	stop, err := Options{}.Start(t.Context(), logr.Discard())
	if err != nil {
		t.Error(err)
	}
	stop()
}

// TestProfiles: what go tool pprof asks for is there, and the command line is not.
func TestProfiles(t *testing.T) {
	t.Parallel()
	var entry struct{ Pprof string }
	logger := funcr.NewJSON(func(line string) { _ = json.Unmarshal([]byte(line), &entry) }, funcr.Options{})
	stop, err := Options{Address: "127.0.0.1:0"}.Start(t.Context(), logger)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{
		"": 200, "heap": 200, "goroutine?debug=2": 200, "profile?seconds=1": 200, "trace?seconds=0.1": 200, "cmdline": 404, "nothing": 404,
	} {
		response, err := client.Get("http://" + entry.Pprof + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != want || len(body) == 0 {
			t.Errorf("%s: %d, %d bytes, %v", path, response.StatusCode, len(body), err)
		}
	}
}
