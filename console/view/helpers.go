package view

import (
	"slices"
	"strings"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
)

func lower(text string) string { return strings.ToLower(text) }

func newestFirst(attempts []deliveries.Attempt) []deliveries.Attempt {
	sorted := slices.Clone(attempts)
	slices.SortFunc(sorted, func(a, b deliveries.Attempt) int { return b.Number - a.Number })
	return sorted
}

// readKey is the command that shows the new key of a rotation, or the current one, to those who may read Secrets.
func readKey(sub *v1alpha1.WebhookSubscription) string {
	ref := sub.Spec.Signing.SecretRef
	if next := sub.Spec.Signing.NextSecretRef; next != nil {
		ref = *next
	}
	return "kubectl -n " + Shown(sub.Namespace) + " get secret " + Shown(ref.Name) + " -o go-template='{{index .data \"" + Shown(ref.Key) + "\" | base64decode}}'"
}
