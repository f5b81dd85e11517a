package config_test

import (
	"path/filepath"
	"testing"
)

// testReplaySamples shows the API server each sample of a WebhookReplay.
func testReplaySamples(t *testing.T) {
	files, err := filepath.Glob("samples/replays/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		kubectl(t, "create", "--dry-run=server", "--validate=strict", "-f", file)
	}
}
