package controllers_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	certs "github.com/clinikapi/eventflow/controllers/certificates"
)

const (
	ingestSecret = "eventflow-ingest-main"
	ingestCA     = "eventflow-ca-main"
)

// publishedAt waits until producers are told an URL by a scheme, and what to trust, and returns the latter.
func publishedAt(t *testing.T, d *v1alpha1.WebhookDispatcher, scheme string, trust bool) string {
	t.Helper()
	appears(t, d, func(d *v1alpha1.WebhookDispatcher) error {
		if want := scheme + "://" + workload + "." + d.Namespace + ".svc"; d.Status.PublishURL != want || trust != (d.Status.PublishCA != "") {
			return fmt.Errorf("publishURL %s, publishCA %q", d.Status.PublishURL, d.Status.PublishCA)
		}
		return nil
	})
	return d.Status.PublishCA
}

// ports waits until pods and Service have these ports of the API.
func ports(t *testing.T, ns string, want ...string) {
	t.Helper()
	appears(t, in(ns, workload, &corev1.Service{}), func(s *corev1.Service) error {
		var got []string
		for _, p := range s.Spec.Ports {
			if p.Name != "ops" {
				got = append(got, fmt.Sprint(p.Name, " ", p.Port))
			}
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			return fmt.Errorf("the Service has %v, want %v", got, want)
		}
		return nil
	})
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(d *appsv1.Deployment) error {
		var got []string
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			got = append(got, p.Name)
		}
		if len(got) != len(want)+1 {
			return fmt.Errorf("the pods have %v, want %v and ops", got, want)
		}
		return nil
	})
}

// TestIngestIsSecured: a new dispatcher takes https alone, by a certificate that what is published trusts.
func TestIngestIsSecured(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	bundle := publishedAt(t, d, "https", true)
	ports(t, ns, "https 443")
	set := certs.FromData(appears(t, in(ns, ingestSecret, &corev1.Secret{}), exists).Data)
	if string(set.Bundle) != bundle {
		t.Error("the status and the Secret differ in what to trust")
	}
	appears(t, in(ns, ingestCA, &corev1.ConfigMap{}), func(m *corev1.ConfigMap) error {
		if m.Data["ca.crt"] != bundle || len(m.Data) != 1 || !metav1.IsControlledBy(m, d) {
			return fmt.Errorf("the ConfigMap has %v", m.Data)
		}
		return nil
	})
	pair, err := tls.X509KeyPair(set.Serving.Certificate, set.Serving.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	for _, host := range []string{workload + "." + ns + ".svc", workload + "." + ns + ".svc.cluster.local", workload + "." + ns, "localhost"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}

	// A successor's authority is published long before it is served.
	aged, _, err := certs.Long.Renew(certs.Set{}, []string{
		workload + "." + ns + ".svc", workload + "." + ns + ".svc.cluster.local", workload + "." + ns, workload, "localhost",
	}, time.Now().Add(-certs.Long.Renewal-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	secret := appears(t, in(ns, ingestSecret, &corev1.Secret{}), exists)
	secret.Data = aged.Data()
	if err := api.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	appears(t, in(ns, ingestCA, &corev1.ConfigMap{}), func(m *corev1.ConfigMap) error {
		if n := strings.Count(m.Data["ca.crt"], "BEGIN CERTIFICATE"); n != 2 || !strings.Contains(m.Data["ca.crt"], string(aged.Bundle)) {
			return fmt.Errorf("%d authorities", n)
		}
		return nil
	})
	if now := certs.FromData(appears(t, secret, exists).Data); !bytes.Equal(now.Serving.Certificate, aged.Serving.Certificate) {
		t.Error("the successor is served before producers know it")
	}
}

// TestIngestModesAreFollowed: from http alone, as before, to https alone.
func TestIngestModesAreFollowed(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	mode := func(m v1alpha1.IngestTLSMode) func(*v1alpha1.WebhookDispatcher) {
		return func(d *v1alpha1.WebhookDispatcher) { d.Spec.Ingest.TLS.Mode = m }
	}
	d := dispatcher(t, ns, mode(v1alpha1.IngestTLSDisabled))
	publishedAt(t, d, "http", false)
	ports(t, ns, "http 80")
	change(t, d, mode("")) // as a dispatcher of an earlier version
	publishedAt(t, d, "http", true)
	ports(t, ns, "https 443", "http 80")
	appears(t, d, func(d *v1alpha1.WebhookDispatcher) error {
		for _, c := range d.Status.Conditions {
			if c.Type == v1alpha1.ConditionAccepted && !strings.Contains(c.Message, "spec.ingest.tls.mode to Required") {
				return fmt.Errorf("Accepted says %q", c.Message)
			}
		}
		return nil
	})
	change(t, d, mode(v1alpha1.IngestTLSRequired))
	publishedAt(t, d, "https", true)
	ports(t, ns, "https 443")
	change(t, d, mode("")) // and it stays so
	publishedAt(t, d, "https", true)
	ports(t, ns, "https 443")
}

// TestOwnIngestCertificate: a Secret of somebody's is served, and checked.
func TestOwnIngestCertificate(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Ingest.TLS.CertificateSecretRef = &v1alpha1.SecretReference{Name: "own"}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	other, _, err := certs.Long.Renew(certs.Set{}, []string{"events.example.com"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "own"}, Type: corev1.SecretTypeTLS, Data: other.Data()}
	if err := api.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretKeyInvalid)
	good, _, err := certs.Long.Renew(certs.Set{}, []string{"events.example.com", workload + "." + ns + ".svc"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = good.Data()
	if err := api.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	if bundle := publishedAt(t, d, "https", true); bundle != string(good.Bundle) {
		t.Error("producers are told to trust something else")
	}
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(d *appsv1.Deployment) error {
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.Secret != nil && v.Secret.SecretName == "own" {
				return nil
			}
		}
		return fmt.Errorf("the pods do not mount it: %+v", d.Spec.Template.Spec.Volumes)
	})
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: ingestSecret}, &corev1.Secret{}); err == nil {
		t.Error("the manager made a certificate that nobody needs")
	}
}
