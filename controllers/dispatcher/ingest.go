package dispatcher

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/controllers/names"
)

// What of a dispatcher follows from how its publish API is reached: ports, a certificate, and the ConfigMap with what producers
// trust. The certificate stays where TLS is disabled, so that producers that trust it still can when it is required again.

const (
	ingestVolume, ingestPath     = "ingest-certificate", "/etc/eventflow/ingest"
	clientCAVolume, clientCAPath = "ingest-client-ca", "/etc/eventflow/client-ca"
	clientCAFile                 = "ca.crt"

	httpPortName, httpsPortName = "http", "https"
)

// settleIngest makes the spec, as it is here, say how the API is reached, and decides what producers are told. A dispatcher
// that was reached by http before, and says nothing, goes on so beside https: what was told to producers stays true.
func settleIngest(o *observation) {
	mode, scheme := &o.dispatcher.Spec.Ingest.TLS.Mode, "https"
	if *mode == "" {
		*mode = v1alpha1.IngestTLSRequired
		told := strings.HasPrefix(o.dispatcher.Status.PublishURL, "http:")
		if told || hasPlainPort(o) {
			*mode, o.kept = v1alpha1.IngestTLSOptional, true
		}
		if told {
			scheme = "http"
		}
	}
	if *mode == v1alpha1.IngestTLSDisabled {
		scheme = "http"
	}
	o.publishURL = scheme + "://" + ingestHost(o.dispatcher)
}

// hasPlainPort reports whether the pods that there are take http.
func hasPlainPort(o *observation) bool {
	return o.deployment != nil && slices.ContainsFunc(o.deployment.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == containerName && slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == httpPortName })
	})
}

func takesHTTPS(d *v1alpha1.WebhookDispatcher) bool {
	return d.Spec.Ingest.TLS.Mode != v1alpha1.IngestTLSDisabled
}

func takesHTTP(d *v1alpha1.WebhookDispatcher) bool {
	return d.Spec.Ingest.TLS.Mode == v1alpha1.IngestTLSDisabled || d.Spec.Ingest.TLS.Mode == v1alpha1.IngestTLSOptional
}

// ingestHost is how pods of the cluster name the publish API. It names no cluster domain, which differs.
func ingestHost(d *v1alpha1.WebhookDispatcher) string {
	return names.Workload(d.Name) + "." + d.Namespace + ".svc"
}

// ingestHosts are the names in the certificate that the manager makes. They follow from the dispatcher's name alone: other names
// would need another authority, which producers do not know yet. localhost is for those who forward a port.
func ingestHosts(d *v1alpha1.WebhookDispatcher) []string {
	host := ingestHost(d)
	return []string{host, host + ".cluster.local", strings.TrimSuffix(host, ".svc"), names.Workload(d.Name), "localhost"}
}

// ingestSecret is the name of the Secret with the certificate; own reports whether the manager makes it.
func ingestSecret(d *v1alpha1.WebhookDispatcher) (name string, own bool) {
	if ref := d.Spec.Ingest.TLS.CertificateSecretRef; ref != nil {
		return ref.Name, false
	}
	return names.Ingest(d.Name), true
}

func ingestArguments(d *v1alpha1.WebhookDispatcher) (args []string) {
	switch {
	case !takesHTTPS(d):
		args = []string{"--listen=:" + strconv.Itoa(httpPort)}
	default:
		args = []string{
			"--listen=:" + strconv.Itoa(httpsPort),
			"--tls-cert-file=" + ingestPath + "/" + certificates.CertificateKey,
			"--tls-key-file=" + ingestPath + "/" + certificates.PrivateKeyKey,
		}
		if takesHTTP(d) {
			args = append(args, "--plain-listen=:"+strconv.Itoa(httpPort))
		}
		if d.Spec.Ingest.ClientCA != nil {
			args = append(args, "--ingest-client-ca-file="+clientCAPath+"/"+clientCAFile)
		}
	}
	for _, audience := range d.Spec.Ingest.Audiences {
		args = append(args, "--ingest-audience="+audience)
	}
	return args
}

func ingestPorts(d *v1alpha1.WebhookDispatcher) (ports []*corev1ac.ContainerPortApplyConfiguration) {
	port := func(name string, number int32) {
		ports = append(ports, corev1ac.ContainerPort().WithName(name).WithContainerPort(number).WithProtocol(corev1.ProtocolTCP))
	}
	if takesHTTPS(d) {
		port(httpsPortName, httpsPort)
	}
	if takesHTTP(d) {
		port(httpPortName, httpPort)
	}
	return ports
}

func ingestServicePorts(d *v1alpha1.WebhookDispatcher) (ports []*corev1ac.ServicePortApplyConfiguration) {
	if takesHTTPS(d) {
		ports = append(ports, servicePort(httpsPortName, 443).WithAppProtocol("https"))
	}
	if takesHTTP(d) {
		ports = append(ports, servicePort(httpPortName, 80).WithAppProtocol("http"))
	}
	return ports
}

// ingestVolumes leave the certificate to come out of the pod. The authorities of producers' certificates may be missing: the pod
// takes none of them then.
func ingestVolumes(d *v1alpha1.WebhookDispatcher) (volumes []*corev1ac.VolumeApplyConfiguration) {
	if !takesHTTPS(d) {
		return nil
	}
	item := func(key, path string) *corev1ac.KeyToPathApplyConfiguration {
		return corev1ac.KeyToPath().WithKey(key).WithPath(path)
	}
	name, _ := ingestSecret(d)
	volumes = append(volumes, corev1ac.Volume().WithName(ingestVolume).WithSecret(corev1ac.SecretVolumeSource().
		WithSecretName(name).
		WithItems(item(certificates.CertificateKey, certificates.CertificateKey), item(certificates.PrivateKeyKey, certificates.PrivateKeyKey))))
	ca := d.Spec.Ingest.ClientCA
	if ca == nil {
		return volumes
	}
	volume := corev1ac.Volume().WithName(clientCAVolume)
	if ref := ca.ConfigMapKeyRef; ref != nil {
		volume.WithConfigMap(corev1ac.ConfigMapVolumeSource().WithName(ref.Name).WithOptional(true).WithItems(item(ref.Key, clientCAFile)))
	} else if ref := ca.SecretKeyRef; ref != nil {
		volume.WithSecret(corev1ac.SecretVolumeSource().WithSecretName(ref.Name).WithOptional(true).WithItems(item(ref.Key, clientCAFile)))
	}
	return append(volumes, volume)
}

func ingestMounts(d *v1alpha1.WebhookDispatcher) (mounts []*corev1ac.VolumeMountApplyConfiguration) {
	if !takesHTTPS(d) {
		return nil
	}
	mounts = append(mounts, corev1ac.VolumeMount().WithName(ingestVolume).WithMountPath(ingestPath).WithReadOnly(true))
	if d.Spec.Ingest.ClientCA != nil {
		mounts = append(mounts, corev1ac.VolumeMount().WithName(clientCAVolume).WithMountPath(clientCAPath).WithReadOnly(true))
	}
	return mounts
}

// ingestCA is the ConfigMap with what producers trust.
func ingestCA(d *v1alpha1.WebhookDispatcher, bundle string) []object {
	if bundle == "" {
		return nil
	}
	name := names.IngestCA(d.Name)
	return []object{{kind: "ConfigMap", name: name, configuration: corev1ac.ConfigMap(name, d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithData(map[string]string{certificates.BundleKey: bundle})}}
}

// ingestRefused reports what is wrong with the Secret of the certificate that a dispatcher names.
func (r *Reconciler) ingestRefused(ctx context.Context, d *v1alpha1.WebhookDispatcher) (connection, error) {
	name, own := ingestSecret(d)
	if own || !takesHTTPS(d) {
		return connection{}, nil
	}
	const field = "spec.ingest.tls.certificateSecretRef"
	secret := &corev1.Secret{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return connection{reason: v1alpha1.ReasonSecretNotFound, message: fmt.Sprintf(
			"%s: there is no Secret %s in namespace %s: create it, of type kubernetes.io/tls", field, name, d.Namespace)}, nil
	}
	if err != nil {
		return connection{}, fmt.Errorf("get Secret %s: %w", name, err)
	}
	pair, err := tls.X509KeyPair(secret.Data[certificates.CertificateKey], secret.Data[certificates.PrivateKeyKey])
	if err != nil {
		return connection{reason: v1alpha1.ReasonSecretKeyInvalid, message: fmt.Sprintf(
			"%s: Secret %s holds no certificate with its key, in PEM, as %s and %s", field, name, certificates.CertificateKey, certificates.PrivateKeyKey)}, nil
	}
	if pair.Leaf.VerifyHostname(ingestHost(d)) != nil {
		return connection{reason: v1alpha1.ReasonSecretKeyInvalid, message: fmt.Sprintf(
			"%s: the certificate in Secret %s is not for %s, by which pods of the cluster publish: add that name to it", field, name, ingestHost(d))}, nil
	}
	return connection{}, nil
}

// ensureCertificates keeps the certificates of a dispatcher valid, and returns when to look again; the zero time if it has none.
// They are written before the pods that mount them.
func (r *Reconciler) ensureCertificates(ctx context.Context, o *observation) (again time.Time, err error) {
	if again, err = r.ensureCertificate(ctx, o.dispatcher); err != nil || !takesHTTPS(o.dispatcher) {
		return again, err
	}
	name, own := ingestSecret(o.dispatcher)
	if !own {
		if o.connection.reason == "" {
			o.publishCA, err = r.authorities(ctx, o.dispatcher, name)
		}
		return again, err
	}
	set, renewal, err := r.keepCertificate(ctx, o.dispatcher, name, ingestHosts(o.dispatcher), certificates.Long)
	if err != nil {
		return again, err
	}
	o.publishCA = string(set.Bundle)
	if again.IsZero() || renewal.Before(again) {
		again = renewal
	}
	return again, nil
}

// authorities are those that somebody's Secret names beside its certificate, "" if it names none.
func (r *Reconciler) authorities(ctx context.Context, d *v1alpha1.WebhookDispatcher, name string) (string, error) {
	secret := &corev1.Secret{}
	if err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: name}, secret); err != nil {
		return "", fmt.Errorf("get Secret %s: %w", name, err)
	}
	bundle := string(secret.Data[certificates.BundleKey])
	if certificatesProblem(bundle) != "" { // such as an empty one, which cert-manager writes for a public authority
		return "", nil
	}
	return bundle, nil
}
