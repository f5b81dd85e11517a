package dispatcher

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func TestProxy(t *testing.T) {
	t.Parallel()
	d := &v1alpha1.WebhookDispatcher{}
	d.Spec.Egress.Proxy.SecretRef.Name = "proxy" // the schema lets it pass with a URL alone
	if args := proxyArguments(d); args != nil || proxyVolumes(d) != nil || proxyMounts(d) != nil || connects(d, "proxy") {
		t.Errorf("without a proxy: %v", args)
	}
	d.Spec.Egress.Proxy.URL = "http://proxy:3128"
	want := []string{"--egress-proxy=http://proxy:3128", "--egress-proxy-connect=Address", "--egress-proxy-secrets=/etc/eventflow/egress-proxy"}
	if args := proxyArguments(d); !slices.Equal(args, want) || !slices.Equal(arguments(d)[len(arguments(d))-len(want):], want) {
		t.Errorf("arguments %v", arguments(d))
	}
	if volumes, mounts := proxyVolumes(d), proxyMounts(d); len(volumes) != 1 || *volumes[0].Secret.SecretName != "proxy" || len(mounts) != 1 || *mounts[0].MountPath != proxyPath || !connects(d, "proxy") || connects(d, "") {
		t.Errorf("volumes %v, mounts %v", volumes, mounts)
	}
	d.Spec.Egress.Proxy.SecretRef.Name, d.Spec.Egress.Proxy.Connect = "", v1alpha1.ConnectHost
	if args := proxyArguments(d); !slices.Equal(args, []string{"--egress-proxy=http://proxy:3128", "--egress-proxy-connect=Host"}) || proxyVolumes(d) != nil || proxyMounts(d) != nil || connects(d, "") {
		t.Errorf("without a Secret: %v", args)
	}
}

func TestProxySecretRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data map[string]string
		want string
	}{
		"credentials":    {map[string]string{"username": "a", "password": "b"}, ""},
		"no password":    {map[string]string{"username": "a"}, v1alpha1.ReasonSecretKeyMissing},
		"no user":        {map[string]string{"password": "b", "ca.crt": "x"}, v1alpha1.ReasonSecretKeyMissing},
		"nothing":        {map[string]string{"other": "b"}, v1alpha1.ReasonSecretKeyMissing},
		"no certificate": {map[string]string{"ca.crt": "x"}, v1alpha1.ReasonSecretKeyInvalid},
		"no Secret":      {nil, v1alpha1.ReasonSecretNotFound},
	} {
		var secret *corev1.Secret
		if test.data != nil {
			secret = &corev1.Secret{Data: map[string][]byte{}}
			for key, value := range test.data {
				secret.Data[key] = []byte(value)
			}
		}
		if reason, message := proxyProblem("proxy", "webhooks", secret); reason != test.want || (message == "") != (test.want == "") {
			t.Errorf("%s: %q, %q; want %q", name, reason, message, test.want)
		}
	}
}
