package routing

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func TestCompileTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	_, other := certificate(t)
	ours := func(sub *v1alpha1.WebhookSubscription) {
		sub.Spec.TLS.ClientCertificateSecretRef = v1alpha1.SecretReference{Name: "ours"}
	}
	for name, tc := range map[string]struct {
		secret        map[string]string
		edit          func(*v1alpha1.WebhookSubscription)
		reason, words string
	}{
		"a pair":               {secret: map[string]string{"tls.crt": cert, "tls.key": key}, edit: ours},
		"with notes":           {secret: map[string]string{"tls.crt": "# " + canary + "\n" + cert, "tls.key": "\x00 " + canary + "\n" + key}, edit: ours},
		"no Secret":            {edit: ours, reason: "SecretNotFound", words: `Secret "ours" not found`},
		"no key in it":         {secret: map[string]string{"tls.crt": cert}, edit: ours, reason: "SecretKeyMissing", words: `has no key "tls.key"`},
		"no certificate in it": {secret: map[string]string{"tls.key": key}, edit: ours, reason: "SecretKeyMissing", words: `has no key "tls.crt"`},
		"another's key":        {secret: map[string]string{"tls.crt": cert, "tls.key": other}, edit: ours, reason: "ClientCertificateInvalid", words: "tls.key: the private key does not belong to the first certificate"},
		"no certificate":       {secret: map[string]string{"tls.crt": canary, "tls.key": key}, edit: ours, reason: "ClientCertificateInvalid", words: "tls.crt: it holds no certificate"},
		"no private key":       {secret: map[string]string{"tls.crt": cert, "tls.key": canary}, edit: ours, reason: "ClientCertificateInvalid", words: "tls.key: there is no private key"},
		"exchanged":            {secret: map[string]string{"tls.crt": key, "tls.key": cert}, edit: ours, reason: "ClientCertificateInvalid", words: "tls.crt: it holds a"},
		"a long key":           {secret: map[string]string{"tls.crt": cert, "tls.key": strings.Repeat(key, 1+maxPrivateKeyBytes/len(key))}, edit: ours, reason: "ClientCertificateInvalid", words: "more than 16384 bytes"},
		"http": {
			secret: map[string]string{"tls.crt": cert, "tls.key": key},
			edit: func(sub *v1alpha1.WebhookSubscription) {
				ours(sub)
				sub.Spec.URL = "HTTP://example.com/hooks"
			},
			reason: "ClientCertificateInvalid", words: "use https",
		},
		"no name of a Secret": {
			edit: func(sub *v1alpha1.WebhookSubscription) {
				sub.Spec.TLS.ClientCertificateSecretRef = v1alpha1.SecretReference{Name: "_"}
			},
			reason: "InvalidSpec", words: "spec.tls.clientCertificateSecretRef.name",
		},
		"a server's name":    {edit: func(sub *v1alpha1.WebhookSubscription) { sub.Spec.TLS.ServerName = "hooks.example.com" }},
		"no server's name":   {edit: func(sub *v1alpha1.WebhookSubscription) { sub.Spec.TLS.ServerName = "a b" }, reason: "InvalidSpec", words: "spec.tls.serverName"},
		"a version of TLS":   {edit: func(sub *v1alpha1.WebhookSubscription) { sub.Spec.TLS.MinVersion = v1alpha1.TLS13 }},
		"another one of TLS": {edit: func(sub *v1alpha1.WebhookSubscription) { sub.Spec.TLS.MinVersion = "VersionTLS11" }, reason: "InvalidSpec", words: "spec.tls.minVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub, all := minimal(), clinicSecrets()
			tc.edit(sub)
			if tc.secret != nil {
				all["ours"] = map[string][]byte{}
				for key, value := range tc.secret {
					all["ours"][key] = []byte(value)
				}
			}
			entry, rejection, err := Compile(sub, secretsOf(all), Policy{Catalog: catalog(t), AllowHTTP: true})
			if err != nil {
				t.Fatal(err)
			}
			if tc.reason != "" {
				if rejection == nil || rejection.Reason != tc.reason || !strings.Contains(rejection.Message, tc.words) || strings.Contains(rejection.Message, canary) {
					t.Fatalf("got %v, want %s: …%s…", rejection, tc.reason, tc.words)
				}
				return
			}
			if rejection != nil {
				t.Fatal(rejection)
			}
			arrives(t, entry, sub.Spec.TLS)
		})
	}
}

// arrives checks that a dispatcher that reads the entry asks for what the spec does.
func arrives(t *testing.T, entry *Entry, spec v1alpha1.SubscriptionTLS) {
	t.Helper()
	text, err := json.Marshal(entry)
	if err != nil || strings.Contains(string(text), canary) {
		t.Fatalf("%v; the notes are in the entry: %s", err, text)
	}
	var read Entry
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	route, err := read.Route()
	if err != nil {
		t.Fatal(err)
	}
	got := route.Endpoint.Target.TLS
	if got == nil || got.ServerName != spec.ServerName || got.MinVersion != spec.MinVersion.Number() || (got.Identity != nil) != (spec.ClientCertificateSecretRef.Name != "") {
		t.Errorf("the target has %+v, want as in %+v", got, spec)
	}
	if end, has := read.ClientCertificateEnd(); has != (spec.ClientCertificateSecretRef.Name != "") || has && end.Equal(time.Time{}) != got.Identity.NotAfter().IsZero() {
		t.Errorf("the certificate's end is %v, %v", end, has)
	}
}

// TestRenewedClientCertificate keeps that a renewed certificate makes another revision, and so another target.
func TestRenewedClientCertificate(t *testing.T) {
	t.Parallel()
	revision := func(cert, key string) int64 {
		sub, all := minimal(), clinicSecrets()
		sub.Spec.TLS.ClientCertificateSecretRef = v1alpha1.SecretReference{Name: "ours"}
		all["ours"] = map[string][]byte{"tls.crt": []byte(cert), "tls.key": []byte(key)}
		entry, rejection, err := Compile(sub, secretsOf(all), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
		}
		return entry.Revision
	}
	cert, key := certificate(t)
	renewed, renewedKey := certificate(t)
	if first := revision(cert, key); first != revision(cert, key) || first == revision(renewed, renewedKey) {
		t.Error("the revision does not follow the certificate")
	}
}
