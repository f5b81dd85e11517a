package routing

import (
	"slices"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/test/kit/references"
)

// TestSecretNamesKnowsEachField keeps that a change of the Secret that any field names is noticed.
func TestSecretNamesKnowsEachField(t *testing.T) {
	t.Parallel()
	for field, spec := range references.Secrets("theirs") {
		if names := SecretNames(&v1alpha1.WebhookSubscription{Spec: spec}); !slices.Equal(names, []string{"theirs"}) {
			t.Errorf("%s: the names of Secrets are %v", field, names)
		}
	}
}
