package dispatcher

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/clinikapi/eventflow/dispatcher/audit"
)

// TestDeliveriesAPIIsAudited: kube-apiserver's users are recorded, once each and when the answer begins; discovery is not.
func TestDeliveriesAPIIsAudited(t *testing.T) {
	t.Parallel()
	const root = "/apis/deliveries.webhooks.clinikapi.com/v1alpha1"
	name := filepath.Join(t.TempDir(), "audit")
	d := &dispatcher{shown: &deliveriesServer{}}
	var err error
	if d.audit, err = audit.Open(audit.Options{Level: audit.Reads, File: name}); err != nil {
		t.Fatal(err)
	}
	handler := d.auditShown(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("x"))
	}))
	for _, asked := range []struct {
		method, path string
		user         bool
	}{
		{"GET", root, true},
		{"GET", root + "/namespaces/clinic-a/webhookdeliveries?labelSelector=secret", true},
		{"GET", root + "/webhookdeliveries?watch=true", true},
		{"GET", root + "/namespaces/clinic-a/webhookdeliveries/dlv_1", true},
		{"POST", root + "/namespaces/clinic-a/webhookdeliveries/dlv_1/replay", true},
		{"GET", root + "/namespaces/clinic-a/webhookdeliveries/dlv_2", false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), asked.method, "https://d"+asked.path, nil)
		if asked.user {
			r = r.WithContext(context.WithValue(r.Context(), userKey{}, &authenticationv1.UserInfo{Username: "nurse"}))
		}
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	if err := d.audit.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"action":"list","user":"nurse","source":"192.0.2.1","namespace":"clinic-a","status":403`,
		`"action":"watch","user":"nurse","source":"192.0.2.1","status":403`,
		`"action":"get","user":"nurse","source":"192.0.2.1","namespace":"clinic-a","delivery":"dlv_1","status":403`,
		`"action":"replay","user":"nurse","source":"192.0.2.1","namespace":"clinic-a","delivery":"dlv_1","status":403`,
	} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("not once: %s\n%s", want, text)
		}
	}
	if s, err := audit.Verify(bytes.NewReader(text)); err != nil || s.Records != 4+2 || bytes.Contains(text, []byte("secret")) {
		t.Errorf("%+v, %v\n%s", s, err, text)
	}
}
