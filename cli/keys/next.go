package keys

import (
	"fmt"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
)

// step is what a run does.
type step int

const (
	stepAdd     step = iota // make a key, and let it sign beside the current one
	stepTell                // the receivers are to be given the new key
	stepPromote             // the new key becomes the current one
	stepRemove              // the old key ends
	stepWait                // for the dispatcher, or for someone to mend the subscription
	stepDone                // the confirmed key is the only one
)

// decision is what is next, and why it is no more than that.
type decision struct {
	step step
	// key is the new key, where it is known.
	key v1alpha1.SigningKey
	// ref is where it stands.
	ref v1alpha1.SecretKeyReference
	// ends reports whether telling the receivers lets the old key end, and not yet the new one become the current one.
	ends bool
	// why a step waits.
	why string
}

// next decides by a subscription, and by the id of the key that the receivers are said to have, "" for none. The error is for
// an id that is not the new key's.
func next(sub *v1alpha1.WebhookSubscription, confirmed string) (decision, error) {
	signing := sub.Spec.Signing
	rotating := signing.PreviousSecretRef != nil || signing.NextSecretRef != nil
	if !rotating && confirmed == "" {
		return decision{step: stepAdd}, nil
	}
	keys, why := kube.SigningKeys(sub)
	if why != "" {
		return decision{step: stepWait, why: why}, nil
	}
	d := decision{key: keys[0], ref: signing.SecretRef, ends: true}
	if rotating && signing.PreviousSecretRef == nil {
		d = decision{key: keys[1], ref: *signing.NextSecretRef}
	}
	switch {
	case confirmed != "" && confirmed != d.key.ID:
		return decision{}, fmt.Errorf("the receivers have to have key %s, not %s: see \"eventflow keys show %s -n %s\"", d.key.ID, confirmed, sub.Name, sub.Namespace)
	case !rotating:
		d.step = stepDone
	case confirmed == "":
		d.step = stepTell
	case d.ends:
		d.step = stepRemove
	default:
		d.step = stepPromote
	}
	return d, nil
}

// undone is spec.signing as it was before the last step, and whether there is one that can be taken back. The key that the
// receivers had first signs in each of them.
func undone(signing v1alpha1.Signing) (v1alpha1.Signing, bool) {
	switch {
	case signing.NextSecretRef != nil && signing.PreviousSecretRef == nil:
		return v1alpha1.Signing{SecretRef: signing.SecretRef}, true
	case signing.PreviousSecretRef != nil && signing.NextSecretRef == nil:
		current := signing.SecretRef
		return v1alpha1.Signing{SecretRef: *signing.PreviousSecretRef, NextSecretRef: &current}, true
	}
	return signing, false
}

// after is spec.signing after a step.
func after(signing v1alpha1.Signing, s step, made v1alpha1.SecretKeyReference) v1alpha1.Signing {
	switch s {
	case stepAdd:
		signing.NextSecretRef = &made
	case stepPromote:
		current := signing.SecretRef
		signing = v1alpha1.Signing{SecretRef: *signing.NextSecretRef, PreviousSecretRef: &current}
	case stepRemove:
		signing.PreviousSecretRef = nil
	default: // the others change nothing
	}
	return signing
}
