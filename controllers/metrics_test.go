package controllers_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	kit "github.com/clinikapi/eventflow/test/kit/metrics"
)

// TestMetricsOfLibraries: what docs/metrics.md lists of libraries, a running manager has, with that type and those labels.
func TestMetricsOfLibraries(t *testing.T) {
	text, err := os.ReadFile("../" + kit.Document)
	if err != nil {
		t.Fatal(err)
	}
	var has map[string]kit.Family
	eventually(t, func(context.Context) error {
		if has = kit.Gathered(t, metrics.Registry); has["controller_runtime_reconcile_total"].Name == "" {
			return errors.New("nothing was reconciled yet")
		}
		return nil
	})
	checked := 0
	for name, want := range kit.Read(string(text)) {
		if strings.HasPrefix(name, "eventflow_") {
			continue
		}
		checked++
		if got := has[name]; got.Type != want.Type || got.Labels != want.Labels {
			t.Errorf("%s is a %s with labels %q; the document has %s with %q", name, got.Type, got.Labels, want.Type, want.Labels)
		}
	}
	if checked < 5 {
		t.Errorf("%d metrics of libraries were checked", checked)
	}
}
