package dispatcher

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
	"github.com/clinikapi/eventflow/test/kit/metrics"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const document = "../" + metrics.Document

// openedDispatcher has opened all that a dispatcher of a cluster opens: store, encryption, and each of its listeners.
func openedDispatcher(t *testing.T, storeFlag string) *dispatcher {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	files := map[string]string{"keys/current": "k1", "keys/k1": strings.Repeat("k", 32), "kubeconfig": nowhere}
	for name, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(in(name)), 0o700), os.WriteFile(in(name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	writeCertificate(t, in("tls.crt"), in("tls.key"), 1, time.Now())
	options := Options{Version: "1.2.3", Logger: logr.Discard()}
	flags := pflag.NewFlagSet("dispatcher", pflag.ContinueOnError)
	options.AddFlags(flags)
	if storeFlag == "" {
		storeFlag = storePebble + in("store")
	}
	arguments := []string{
		"--routes=kubernetes", "--settings=kubernetes", "--store=" + storeFlag, "--kubeconfig=" + in("kubeconfig"),
		"--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--deliveries-listen=127.0.0.1:0",
		"--encryption-keys=" + in("keys"), "--encryption-seeds=kubernetes", "--audit-level=All", "--audit-file=" + in("audit"),
	}
	for _, listener := range []string{"", "deliveries-"} {
		arguments = append(arguments, "--"+listener+"tls-cert-file="+in("tls.crt"), "--"+listener+"tls-key-file="+in("tls.key"))
	}
	if err := flags.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	d, err := newDispatcher(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ctx, d.stop = context.WithCancel(ctx)
	t.Cleanup(d.stop)
	ops, err := d.listenOps(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ops.close)
	if err := errors.Join(d.listenDeliveries(ctx), d.open(ctx)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.shown.close()
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
	api, err := d.listenAPI(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.close)
	return d
}

// nowhere is a cluster that does not answer.
const nowhere = `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}], users: [{name: a, user: {}}]}`

// TestMetricsAreDocumented makes the dispatcher's parts of docs/metrics.md from the registries of one on each store, and
// fails where a name, a type or a label changed. What both stores have is one part: each has all of it.
func TestMetricsAreDocumented(t *testing.T) {
	embedded := metrics.Of(t, openedDispatcher(t, "").registry, "eventflow_")
	server, err := postgrestest.Start(postgrestest.Options{})
	if errors.Is(err, postgrestest.ErrNotInstalled) && *update {
		t.Skip("without PostgreSQL's programs, the lists stay as they are")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	shared := metrics.Of(t, openedDispatcher(t, server.URL("postgres")).registry, "eventflow_")
	ofStore := func(f metrics.Family) bool { return strings.HasPrefix(f.Name, "eventflow_store_") }
	missing := func(from []metrics.Family) func(metrics.Family) bool {
		return func(f metrics.Family) bool { return !slices.Contains(from, f) }
	}
	for part, families := range map[string][]metrics.Family{
		"dispatcher": slices.DeleteFunc(slices.Clone(embedded), ofStore),
		"store":      keep(embedded, func(f metrics.Family) bool { return ofStore(f) && slices.Contains(shared, f) }),
		"embedded":   keep(embedded, missing(shared)),
		"postgresql": keep(shared, missing(embedded)),
	} {
		if len(families) < 2 {
			t.Errorf("part %s has %v", part, families)
		}
		metrics.Documented(t, document, part, families, *update)
	}
}

func keep(families []metrics.Family, wanted func(metrics.Family) bool) []metrics.Family {
	return slices.DeleteFunc(slices.Clone(families), func(f metrics.Family) bool { return !wanted(f) })
}

// TestNoMetricNamesATenant: no label's values are those of tenants, subscriptions or hosts.
func TestNoMetricNamesATenant(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	all := metrics.Read(string(text))
	if len(all) < 60 {
		t.Errorf("the document lists %d metrics", len(all))
	}
	for name, f := range all {
		if regexp.MustCompile(`\b(tenant|subscription|namespace|host|endpoint|url)\b`).MatchString(f.Labels) {
			t.Errorf("%s has labels %s", name, f.Labels)
		}
	}
}

// TestExpiryIsShown: /metrics says when the certificate ends that each listener with one serves.
func TestExpiryIsShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1, time.Now())
	d := &dispatcher{registry: prometheus.NewRegistry()}
	if _, err := reloadedCertificate(certFile, keyFile, logr.Discard(), d.showExpiry("api")); err != nil {
		t.Fatal(err)
	}
	families, err := d.registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	expiry := time.Unix(int64(families[0].GetMetric()[0].GetGauge().GetValue()), 0)
	if left := time.Until(expiry); left < 50*time.Minute || left > time.Hour {
		t.Errorf("it ends in %s, want an hour", left)
	}
}

// slow is a store whose appends fail.
type slow struct{ store.Store }

func (slow) Append(context.Context, []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	return nil, nil, store.ErrFull
}

// TestAppendsAreTimed: also those that fail.
func TestAppendsAreTimed(t *testing.T) {
	t.Parallel()
	d := &dispatcher{registry: prometheus.NewRegistry()}
	s := newTimed(slow{}, d.registry)
	if _, _, err := s.Append(t.Context(), nil); !errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
	answer := httptest.NewRecorder()
	d.serveOps(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if text, _ := io.ReadAll(answer.Body); !strings.Contains(string(text), "eventflow_store_append_seconds_count 1\n") {
		t.Errorf("%s", text)
	}
}
