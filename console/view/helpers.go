package view

import (
	"slices"
	"strings"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

func lower(text string) string { return strings.ToLower(text) }

func newestFirst(attempts []deliveries.Attempt) []deliveries.Attempt {
	sorted := slices.Clone(attempts)
	slices.SortFunc(sorted, func(a, b deliveries.Attempt) int { return b.Number - a.Number })
	return sorted
}

// rotation is how far a change of keys is. The zero key is for "not known", and why says the reason.
type rotation struct {
	// begun: a new key signs beside the current one. promoted: it is the current one, and the old one signs beside it.
	begun, promoted bool
	// key is the new key, or the only one, and ref is where it stands.
	key v1alpha1.SigningKey
	ref v1alpha1.SecretKeyReference
	why string
}

func rotationOf(sub *v1alpha1.WebhookSubscription) rotation {
	signing := sub.Spec.Signing
	r := rotation{promoted: signing.PreviousSecretRef != nil, ref: signing.SecretRef}
	r.begun = signing.NextSecretRef != nil && !r.promoted
	keys, why := kube.SigningKeys(sub)
	if r.why = why; why != "" {
		return r
	}
	r.key = keys[0]
	if r.begun {
		r.key, r.ref = keys[1], *signing.NextSecretRef
	}
	return r
}

// readKey is the command that shows a key to those who may read Secrets.
func readKey(namespace string, ref v1alpha1.SecretKeyReference) string {
	return "kubectl -n " + Shown(namespace) + " get secret " + Shown(ref.Name) + " -o go-template='{{index .data \"" + Shown(ref.Key) + "\" | base64decode}}'"
}

// rotateCommand is the command that makes the steps of the page.
func rotateCommand(sub *v1alpha1.WebhookSubscription) string {
	return "eventflow keys rotate " + Shown(sub.Name) + " -n " + Shown(sub.Namespace)
}
