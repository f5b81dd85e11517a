package subscription

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// SecretLabel is the label that a Secret must have for subscriptions to name it. The zero value demands none.
type SecretLabel struct{ key, value string }

// ParseSecretLabel reads key=value; "" demands no label.
func ParseSecretLabel(text string) (SecretLabel, error) {
	if text == "" {
		return SecretLabel{}, nil
	}
	key, value, found := strings.Cut(text, "=")
	if !found || len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
		return SecretLabel{}, fmt.Errorf("%q is no label: want key=value, such as webhooks.example.com/allowed=true", text)
	}
	return SecretLabel{key: key, value: value}, nil
}

// allows reports whether a Secret with the given labels may be named.
func (l SecretLabel) allows(labels map[string]string) bool {
	if l.key == "" {
		return true
	}
	value, found := labels[l.key]
	return found && value == l.value
}

// version is that of a Secret, and not the one of the same Secret where the label has to be another.
func (l SecretLabel) version(secret client.Object) string {
	if l.allows(secret.GetLabels()) {
		return versionOf(secret)
	}
	return versionOf(secret) + " without " + l.key + "=" + l.value
}

// only lets through the values of Secrets that may be named.
func (l SecretLabel) only(read fetchObject) fetch {
	return func(ctx context.Context, key client.ObjectKey) (map[string][]byte, bool, string, error) {
		secret, err := read(ctx, key)
		if err != nil || secret == nil {
			return nil, false, "", err
		}
		if !l.allows(secret.Labels) {
			return nil, true, l.version(secret), &routing.Rejection{
				Reason:  v1alpha1.ReasonSecretNotAllowed,
				Message: fmt.Sprintf("Secret %s may not be named by subscriptions: somebody who may write it has to label it %s=%s", key.Name, l.key, l.value),
			}
		}
		return secret.Data, true, l.version(secret), nil
	}
}
