package dispatcher

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/spelling"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// connectionAnnotation on a pod is the version of the Secrets that it connects by: a change of one rolls the pods,
// which read them when they start. It is no hash of what they hold, because who may read pods could try passwords on it.
const connectionAnnotation = "webhooks.clinikapi.com/connection-version"

// connection is what the Secrets of a database's connection amount to. The zero value is that of an embedded store.
type connection struct {
	version         string // of the Secrets; "" if reason is set
	reason, message string // what is wrong with them, "" if nothing
}

// connection reads the Secrets that a dispatcher's store names, by name and from the API server.
func (r *Reconciler) connection(ctx context.Context, d *v1alpha1.WebhookDispatcher) (connection, error) {
	if refused, err := r.keysRefused(ctx, d); err != nil || refused.reason != "" {
		return refused, err
	}
	if refused, err := r.ingestRefused(ctx, d); err != nil || refused.reason != "" {
		return refused, err
	}
	if refused, err := r.proxyRefused(ctx, d); err != nil || refused.reason != "" {
		return refused, err
	}
	postgres := d.Spec.Store.Postgres
	if postgres == nil {
		return connection{}, nil
	}
	var versions []string
	for _, ref := range secretRefs(postgres) {
		secret := &corev1.Secret{}
		err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: ref.Name}, secret)
		if apierrors.IsNotFound(err) {
			secret = nil
		} else if err != nil {
			return connection{}, fmt.Errorf("get Secret %s: %w", ref.Name, err)
		}
		if reason, message, failed := secretRefused(ref, d.Namespace, secret); failed {
			return connection{reason: reason, message: message}, nil
		}
		versions = append(versions, string(secret.UID)+"/"+secret.ResourceVersion)
	}
	return connection{version: strings.Join(versions, ",")}, nil
}

// secretRef is a reference and what its value is for.
type secretRef struct {
	v1alpha1.SecretKeyReference
	field string
	check func(value string) (problem string)
}

// secretRefs are those that a store names.
func secretRefs(postgres *v1alpha1.PostgresStore) []secretRef {
	verified := postgres.CASecretRef != nil
	refs := []secretRef{{
		SecretKeyReference: postgres.ConnectionSecretRef,
		field:              "connectionSecretRef",
		check:              func(value string) string { return connectionProblem(value, verified) },
	}}
	if verified {
		refs = append(refs, secretRef{SecretKeyReference: *postgres.CASecretRef, field: "caSecretRef", check: certificatesProblem})
	}
	return refs
}

// secretRefused tells what is wrong with a Secret, which is nil if there is none. It never says what the Secret holds.
func secretRefused(ref secretRef, namespace string, secret *corev1.Secret) (reason, message string, failed bool) {
	field := "spec.store.postgres." + ref.field
	if secret == nil {
		return v1alpha1.ReasonSecretNotFound,
			fmt.Sprintf("%s: there is no Secret %s in namespace %s: create it, with key %s", field, ref.Name, namespace, ref.Key), true
	}
	value, ok := secret.Data[ref.Key]
	if !ok {
		return v1alpha1.ReasonSecretKeyMissing,
			fmt.Sprintf("%s: Secret %s has no key %s: add it, or name another", field, ref.Name, ref.Key), true
	}
	if problem := ref.check(string(value)); problem != "" {
		return v1alpha1.ReasonSecretKeyInvalid,
			fmt.Sprintf("%s: key %s of Secret %s %s", field, ref.Key, ref.Name, problem), true
	}
	return "", "", false
}

// connectionProblem tells what keeps a value from being a database's URL, "" if nothing is known to. The host is not
// looked at: PostgreSQL allows several, which a URL of RFC 3986 does not.
func connectionProblem(value string, verified bool) string {
	rest, ok := strings.CutPrefix(value, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(value, "postgresql://")
	}
	if odd := spelling.Odd([]byte(value)); odd != "" {
		return "has " + odd + ": write it without, or as in a URL (%C2%A0) if a password has it"
	}
	if !ok || rest == "" {
		return "is not a database's URL: it must be like postgres://user:password@host/database"
	}
	if strings.Contains(rest, " ") {
		return "has a space in it: a database's URL has none"
	}
	_, query, _ := strings.Cut(rest, "?")
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return "has parameters, behind the question mark, that are not written as in a URL"
	}
	if verified && parameters.Has("sslrootcert") {
		return "has an sslrootcert, which would be read in place of what caSecretRef names: remove it"
	}
	if mode := parameters.Get("sslmode"); verified && mode != "" && mode != "verify-full" && mode != "verify-ca" {
		return "has an sslmode that does not verify the server, although caSecretRef is set: remove sslmode, or make it verify-full"
	}
	return ""
}

func certificatesProblem(value string) string {
	const begin = "-----BEGIN CERTIFICATE-----"
	n := 0
	for block, rest := pem.Decode([]byte(value)); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			n++
		}
	}
	switch all := strings.Count(value, begin); {
	case n == 0:
		return "holds no certificate: it must be PEM"
	case n < all: // which crypto/x509 would leave out without a word
		return fmt.Sprintf("has %d of %d certificates that cannot be read: each %s must be at the beginning of a line, with nothing before it, not even a byte order mark", all-n, all, begin)
	}
	return ""
}

// connecting finds the dispatchers whose store names a Secret.
func (r *Reconciler) connecting(ctx context.Context, secret client.Object) []reconcile.Request {
	list := &v1alpha1.WebhookDispatcherList{}
	if err := r.Client.List(ctx, list, client.InNamespace(secret.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "could not list the dispatchers that a Secret concerns")
		return nil
	}
	var requests []reconcile.Request
	if key, ok := holdsSettings(secret); ok { // someone may have changed or deleted it
		requests = append(requests, reconcile.Request{NamespacedName: key})
	}
	for i := range list.Items {
		if connects(&list.Items[i], secret.GetName()) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

func connects(d *v1alpha1.WebhookDispatcher, secret string) bool {
	if name, _ := keySecret(d); encrypts(d) && name == secret {
		return true
	}
	if AsksForDeliveries(d) && names.Deliveries(d.Name) == secret { // somebody may have changed or deleted the certificate
		return true
	}
	if name, _ := ingestSecret(d); d.Spec.Ingest.TLS.Mode != v1alpha1.IngestTLSDisabled && name == secret {
		return true
	}
	if name := proxySecret(d); name != "" && name == secret {
		return true
	}
	postgres := d.Spec.Store.Postgres
	if postgres == nil {
		return false
	}
	return postgres.ConnectionSecretRef.Name == secret || postgres.CASecretRef != nil && postgres.CASecretRef.Name == secret
}
