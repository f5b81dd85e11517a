package subscription

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestAReceiverInTheClusterIsToldAllAtOnce: http that is not allowed and addresses that no rule opens are named together.
func TestAReceiverInTheClusterIsToldAllAtOnce(t *testing.T) {
	t.Parallel()
	opened := []routing.EgressRule{{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}}
	for name, test := range map[string]struct {
		url   string
		rules []routing.EgressRule
		cidrs []string
		want  bool
	}{
		"a Service":                 {"http://receiver.clinic-a.svc/hooks", nil, nil, true},
		"a Service, whole name":     {"http://receiver.clinic-a.svc.cluster.local:8080/hooks", nil, nil, true},
		"a short name":              {"http://receiver/hooks", nil, nil, true},
		"a private address":         {"https://10.96.0.10/hooks", nil, nil, true},
		"loopback":                  {"https://127.0.0.1/hooks", nil, nil, true},
		"a Service that is opened":  {"http://receiver.clinic-a.svc/hooks", opened, nil, false},
		"opened to all":             {"http://receiver.clinic-a.svc/hooks", nil, []string{"10.0.0.0/8"}, false},
		"an address that is opened": {"https://10.96.0.10/hooks", opened, nil, false},
		"another address":           {"https://192.168.0.10/hooks", opened, nil, true},
		"public":                    {"http://hooks.example.com/", nil, nil, false},
		"a public address":          {"http://192.0.2.1/", nil, nil, false},
		"from a Secret":             {"", nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &v1alpha1.WebhookDispatcher{}
			d.Namespace, d.Name = "eventflow-system", "default"
			d.Spec.Egress.AllowedCIDRs = test.cidrs
			in := &circumstances{dispatcher: d, granted: &terms{egress: test.rules}}
			if test.url == "" && in.lacking("clinic-a", test.url) != "" {
				t.Fatal("it judges a URL that it does not know")
			}
			rejection := completed(&routing.Rejection{Reason: v1alpha1.ReasonHTTPNotAllowed, Message: "http needs spec.egress.allowHTTP"}, in.lacking("clinic-a", test.url))
			told := strings.Contains(rejection.Message, "spec.egress.rules") && strings.Contains(rejection.Message, "clinic-a")
			if told != test.want || !strings.Contains(rejection.Message, "allowHTTP") || strings.Contains(rejection.Message, "hooks") {
				t.Errorf("it tells of rules: %t, want %t: %s", told, test.want, rejection.Message)
			}
		})
	}
}

// TestTheEndOfAClientCertificateIsTold: the condition Accepted says it, beside what is lacking.
func TestTheEndOfAClientCertificateIsTold(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	entry := &routing.Entry{Namespace: "clinic-a", URL: "https://receiver.clinic-a.svc/", TLS: &routing.TLS{
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}}
	in := &circumstances{dispatcher: &v1alpha1.WebhookDispatcher{}, granted: &terms{}}
	got := accepted(observation{verdict: verdict{hint: in.hint(entry)}}).Message
	if !strings.Contains(got, "its client certificate is valid until 2031-02-03T04:05:06Z; the endpoint's host") {
		t.Errorf("the message is %s", got)
	}
	entry.TLS, entry.URL = nil, "https://example.com/"
	if hint := in.hint(entry); hint != "" {
		t.Errorf("without one it says %s", hint)
	}
}
