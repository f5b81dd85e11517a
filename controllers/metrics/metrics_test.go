package metrics_test

import (
	"flag"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	_ "github.com/clinikapi/eventflow/controllers/announce" // has metrics
	own "github.com/clinikapi/eventflow/controllers/metrics"
	"github.com/clinikapi/eventflow/controllers/routes"
	kit "github.com/clinikapi/eventflow/test/kit/metrics"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

// TestMetricsAreDocumented makes the manager's part of docs/metrics.md, and fails where a name, a type or a label changed.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	own.Show("1.2.3")
	routes.ShowTable("eventflow-system", "default", 0)
	families := kit.Of(t, metrics.Registry.(kit.Source), "eventflow_")
	if len(families) < 6 {
		t.Errorf("found %v", families)
	}
	kit.Documented(t, "../../"+kit.Document, "manager", families, *update)
}
