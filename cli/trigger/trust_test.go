package trigger

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestDispatcherIsVerified: by what the cluster says of it, and by nothing that the machine trusts beside.
func TestDispatcherIsVerified(t *testing.T) {
	t.Parallel()
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"evt_1","deliveries":0}`)
	}))
	t.Cleanup(api.Close)
	bundle := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	for name, test := range map[string]struct {
		bundle    string
		forwarded bool
		want      string // of the error; "" for none
	}{
		"by the status":                     {bundle, false, ""},
		"by nothing":                        {"", false, "certificate"},
		"by no certificate":                 {"x", false, "status.publishCA"},
		"a port that is forwarded":          {bundle, true, ""},
		"a forwarded port, nothing is said": {"", true, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := dispatcherAt("eventflow-system", "default", api.URL)
			d.Status.PublishCA = test.bundle
			args := []string{"--type", "lab.created", "--follow=false", "--kubeconfig", kubeconfig(t, cluster(t, []v1alpha1.WebhookDispatcher{d}...).URL)}
			if test.forwarded {
				args = append(args, "--server", api.URL)
			}
			_, err := call(t, args...)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("it says %v, want %q", err, test.want)
			}
		})
	}
}
