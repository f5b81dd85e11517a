package dispatcher

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// What of a dispatcher follows from the proxy that its deliveries go through. The pods read what the Secret holds again when it
// changes.

const (
	proxyVolume, proxyPath = "egress-proxy", "/etc/eventflow/egress-proxy"

	proxyUserKey, proxyPasswordKey, proxyCAKey = "username", "password", "ca.crt"
)

func proxyArguments(d *v1alpha1.WebhookDispatcher) []string {
	proxy := &d.Spec.Egress.Proxy
	if proxy.URL == "" {
		return nil
	}
	args := []string{"--egress-proxy=" + proxy.URL, "--egress-proxy-connect=" + string(cmp.Or(proxy.Connect, v1alpha1.ConnectAddress))}
	if proxy.SecretRef.Name != "" {
		args = append(args, "--egress-proxy-secrets="+proxyPath)
	}
	return args
}

// proxySecret is the name of the Secret that the pods mount; "" for none.
func proxySecret(d *v1alpha1.WebhookDispatcher) string {
	if d.Spec.Egress.Proxy.URL == "" {
		return ""
	}
	return d.Spec.Egress.Proxy.SecretRef.Name
}

func proxyVolumes(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeApplyConfiguration {
	name := proxySecret(d)
	if name == "" {
		return nil
	}
	return []*corev1ac.VolumeApplyConfiguration{corev1ac.Volume().WithName(proxyVolume).WithSecret(corev1ac.SecretVolumeSource().WithSecretName(name))}
}

func proxyMounts(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeMountApplyConfiguration {
	if proxySecret(d) == "" {
		return nil
	}
	return []*corev1ac.VolumeMountApplyConfiguration{corev1ac.VolumeMount().WithName(proxyVolume).WithMountPath(proxyPath).WithReadOnly(true)}
}

// proxyRefused reports what is wrong with the Secret of a proxy, without showing anything in it.
func (r *Reconciler) proxyRefused(ctx context.Context, d *v1alpha1.WebhookDispatcher) (connection, error) {
	name := proxySecret(d)
	if name == "" {
		return connection{}, nil
	}
	secret := &corev1.Secret{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		secret = nil
	} else if err != nil {
		return connection{}, fmt.Errorf("get Secret %s: %w", name, err)
	}
	reason, message := proxyProblem(name, d.Namespace, secret)
	return connection{reason: reason, message: message}, nil
}

// proxyProblem tells what is wrong with the Secret of a proxy, which is nil if there is none; "" if nothing.
func proxyProblem(name, namespace string, secret *corev1.Secret) (reason, message string) {
	const field = "spec.egress.proxy.secretRef"
	if secret == nil {
		return v1alpha1.ReasonSecretNotFound, fmt.Sprintf("%s: there is no Secret %s in namespace %s: create it, with the keys %s and %s, %s or all three", field, name, namespace, proxyUserKey, proxyPasswordKey, proxyCAKey)
	}
	_, user := secret.Data[proxyUserKey]
	_, password := secret.Data[proxyPasswordKey]
	ca, trusts := secret.Data[proxyCAKey]
	switch {
	case user != password:
		return v1alpha1.ReasonSecretKeyMissing, fmt.Sprintf("%s: Secret %s has one of the keys %s and %s: add the other", field, name, proxyUserKey, proxyPasswordKey)
	case !user && !trusts:
		return v1alpha1.ReasonSecretKeyMissing, fmt.Sprintf("%s: Secret %s has none of the keys %s, %s and %s", field, name, proxyUserKey, proxyPasswordKey, proxyCAKey)
	case trusts:
		if problem := certificatesProblem(string(ca)); problem != "" {
			return v1alpha1.ReasonSecretKeyInvalid, fmt.Sprintf("%s: key %s of Secret %s %s", field, proxyCAKey, name, problem)
		}
	}
	return "", ""
}
