package config_test

import (
	"path/filepath"
	"testing"
)

// testSamples shows the API server each sample that config/samples/kustomization.yaml does not list.
func testSamples(t *testing.T) {
	for folder, want := range map[string]int{"replays": 2, "pull": 2, "egress": 2} {
		files, err := filepath.Glob(filepath.Join("samples", folder, "*.yaml"))
		if err != nil || len(files) != want {
			t.Errorf("%s: %v, %v; want %d files", folder, files, err, want)
		}
		for _, file := range files {
			kubectl(t, "create", "--dry-run=server", "--validate=strict", "-f", file)
		}
	}
}
