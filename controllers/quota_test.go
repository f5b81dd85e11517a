package controllers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestTermsOfANamespace: its uid, quota and rules are in each entry, and follow its labels and the dispatcher's spec.
func TestTermsOfANamespace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	gold := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Quotas.EventsPerSecond = 10
		d.Spec.Quotas.Overrides = []v1alpha1.QuotaOverride{{NamespaceSelector: gold, TenantLimits: v1alpha1.TenantLimits{PendingDeliveries: 7}}}
		d.Spec.Egress.Rules = []v1alpha1.EgressRule{{NamespaceSelector: gold, CIDRs: []string{"10.0.0.1/32"}, Ports: []int32{8443}}}
	})
	secret(t, ns, "key", map[string]string{"current": signingKey})
	create(t, subscription(ns, "billing"))
	object := &corev1.Namespace{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: ns}, object); err != nil {
		t.Fatal(err)
	}
	want := func(quota, egress string) func(*routing.Entry) error {
		return func(e *routing.Entry) error {
			gotQuota, gotEgress := "", fmt.Sprint(e.Egress)
			if e.Quota != nil {
				gotQuota = fmt.Sprint(*e.Quota)
			}
			if e.Tenant != string(object.UID) || gotQuota != quota || gotEgress != egress {
				return fmt.Errorf("tenant %q, quota %s, egress %s", e.Tenant, gotQuota, gotEgress)
			}
			return nil
		}
	}
	entry(t, ns, "billing", want("", "[]"))
	change(t, object, func(n *corev1.Namespace) { n.Labels["tier"] = "gold" })
	entry(t, ns, "billing", want("{10 0 0 7 0 0}", "[{[] [10.0.0.1/32] [8443]}]"))
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Quotas.Overrides, d.Spec.Egress.Rules[0].Ports = nil, nil })
	entry(t, ns, "billing", want("", "[{[] [10.0.0.1/32] []}]"))
}

// TestQuotaOfSubscriptions: what is beyond it is refused with which, what was accepted stays, and a deletion makes room.
func TestQuotaOfSubscriptions(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Quotas.Subscriptions = 2 })
	secret(t, ns, "key", map[string]string{"current": signingKey})
	first, second := create(t, subscription(ns, "first")), create(t, subscription(ns, "second"))
	names(t, ns, "first", "second")
	third := create(t, subscription(ns, "third"))
	become(t, third, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonQuotaExceeded)
	if c := meta.FindStatusCondition(third.Status.Conditions, v1alpha1.ConditionAccepted); !strings.Contains(c.Message, "quota subscriptions is 2, 2 are used") {
		t.Errorf("message %q", c.Message)
	}

	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Quotas.Subscriptions = 1 })
	change(t, second, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"lab.*"} })
	entry(t, ns, "second", func(e *routing.Entry) error {
		if e.Waiting != "" || e.Patterns[0] != "lab.*" {
			return fmt.Errorf("waiting %q, patterns %v", e.Waiting, e.Patterns)
		}
		return nil
	})
	become(t, third, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonQuotaExceeded)

	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Quotas.Subscriptions = 2 })
	remove(t, first)
	become(t, third, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	names(t, ns, "second", "third")
}

// TestCertificatesOfASubscription come from a ConfigMap or a Secret.
func TestCertificatesOfASubscription(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	one, other := authority(t), authority(t)
	create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ca"}, Data: map[string]string{"ca.crt": one}})
	sub := create(t, subscription(ns, "billing", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.TLS.CAConfigMapRef = &v1alpha1.ConfigMapKeyReference{Name: "ca", Key: "ca.crt"}
	}))
	trusts := func(ca string) func(*routing.Entry) error {
		return func(e *routing.Entry) error {
			if e.CA != ca {
				return errors.New("it has other certificates")
			}
			return nil
		}
	}
	entry(t, ns, "billing", trusts(one))
	held := secret(t, ns, "ca", map[string]string{"ca.crt": "none"})
	change(t, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.TLS = v1alpha1.SubscriptionTLS{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}}
	})
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonCertificatesInvalid)
	change(t, held, func(s *corev1.Secret) { s.StringData = map[string]string{"ca.crt": other} })
	entry(t, ns, "billing", trusts(other))
}

// authority returns a certificate in PEM.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestGoneFollowsSecrets: the revision of an endpoint changes with a value that it takes from a Secret, and with nothing
// else that the manager does.
func TestGoneFollowsSecrets(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	url := secret(t, ns, "url", map[string]string{"url": "https://old.example.com/hooks"})
	sub := create(t, subscription(ns, "billing", func(s *v1alpha1.WebhookSubscription) {
		s.Spec.URL, s.Spec.URLFrom = "", &v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "url", Key: "url"}}
	}))
	var before int64
	entry(t, ns, "billing", func(e *routing.Entry) error {
		before = e.Revision
		return nil
	})
	change(t, url, func(s *corev1.Secret) { s.StringData = map[string]string{"url": "https://new.example.com/hooks"} })
	entry(t, ns, "billing", func(e *routing.Entry) error {
		if e.Revision == before || before == 0 || e.Generation != sub.Generation {
			return fmt.Errorf("revision %d after %d, generation %d", e.Revision, before, e.Generation)
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		if sub.Status.Endpoint != "https://new.example.com" {
			return fmt.Errorf("endpoint %q", sub.Status.Endpoint)
		}
		return nil
	})
}
