package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
)

// lookAgain is how often the status is looked at while the dispatcher is waited for.
const lookAgain = time.Second

// rotation is one run.
type rotation struct {
	kube      client.Client
	out       io.Writer // for the manifests
	notes     io.Writer // for what is said beside them
	namespace string
	name      string
	scheme    v1alpha1.SignatureScheme // "" for that of the current key
	confirmed string
	labels    map[string]string
	dryRun    bool
	manifests bool // print them, and change nothing
	force     bool
	undo      bool
	timeout   time.Duration
}

// run makes the next step, and says what follows.
func (r *rotation) run(ctx context.Context) error {
	sub, err := r.get(ctx)
	if err != nil {
		return err
	}
	if err := r.may(ctx, sub); err != nil {
		return err
	}
	if r.undo {
		return r.takeBack(ctx, sub)
	}
	d, err := next(sub, r.confirmed)
	if err != nil {
		return err
	}
	switch d.step {
	case stepAdd:
		return r.add(ctx, sub)
	case stepPromote, stepRemove:
		if err := r.change(ctx, sub, after(sub.Spec.Signing, d.step, v1alpha1.SecretKeyReference{}), false); err != nil || r.dryRun || r.manifests {
			return err
		}
		r.say(made(d.step, sub))
		return r.follow(ctx)
	default:
		r.explain(d)
		if r.manifests {
			return errors.New("there is no manifest to print: no step can be made now")
		}
		return nil
	}
}

func (r *rotation) get(ctx context.Context) (*v1alpha1.WebhookSubscription, error) {
	sub := &v1alpha1.WebhookSubscription{}
	if err := r.kube.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: r.name}, sub); err != nil {
		return nil, fmt.Errorf("read the subscription: %w", err)
	}
	return sub, nil
}

// may refuses to change what something else owns.
func (r *rotation) may(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	if r.force || r.manifests {
		return nil
	}
	by, err := ownedBy(ctx, r.kube, sub)
	if err != nil {
		return err
	}
	if by != "" {
		return fmt.Errorf("%s: add -o yaml to get the manifests of the next step, or --force to change it here all the same", by)
	}
	return nil
}

// add makes a key, and names it in the spec. The Secret is made once the API server said that it would take the change.
func (r *rotation) add(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	scheme, err := r.schemeOf(sub)
	if err != nil {
		return err
	}
	secret := newSecret(sub, scheme, r.labels)
	signing := after(sub.Spec.Signing, stepAdd, v1alpha1.SecretKeyReference{Name: secret.Name, Key: secretKey})
	if r.manifests {
		return printManifests(r.out, sub, signing, secret)
	}
	if err := r.change(ctx, sub, signing, true); err != nil {
		return err
	}
	if r.dryRun {
		return nil
	}
	left, err := ensure(ctx, r.kube, secret, r.labels)
	if err != nil {
		return err
	}
	if err := r.change(ctx, sub, signing, false); err != nil {
		return err
	}
	if left == nil {
		r.say("Step 1 of 4 is made: Secret " + secret.Name + " has a new key, which signs beside the current one.")
		return r.follow(ctx)
	}
	r.say(fmt.Sprintf("Step 1 of 4 is made. It reuses the key in Secret %s, made at %s, which signs beside the current one.\n"+
		"For another key, take this step back with --undo, delete that Secret, and make the step again.", left.Name, left.CreationTimestamp.UTC().Format(time.RFC3339)))
	return r.follow(ctx)
}

// schemeOf is the scheme that was asked for, or that of the current key. A wrong guess would replace a pair by a shared key.
func (r *rotation) schemeOf(sub *v1alpha1.WebhookSubscription) (v1alpha1.SignatureScheme, error) {
	if r.scheme != "" {
		return r.scheme, nil
	}
	keys, why := kube.SigningKeys(sub)
	if why != "" {
		return "", fmt.Errorf("say --scheme=v1 for a shared key, or --scheme=v1a for a pair, because the scheme of the current key is not known: %s", why)
	}
	return keys[0].Scheme, nil
}

func (r *rotation) takeBack(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	signing, ok := undone(sub.Spec.Signing)
	if !ok {
		return errors.New("there is no step to take back: spec.signing names one key, or three")
	}
	if err := r.change(ctx, sub, signing, false); err != nil || r.dryRun || r.manifests {
		return err
	}
	r.say("The last step is taken back. Secrets stay.")
	if next := sub.Spec.Signing.NextSecretRef; next != nil && next.Name == secretName(sub) {
		r.say(fmt.Sprintf("The next rotation may use the key in Secret %s again. If it is to make another one:\n    kubectl -n %s delete secret %s", next.Name, r.namespace, next.Name))
	}
	return nil
}

// change replaces spec.signing, if it is still what was looked at: a JSON patch (RFC 6902) that tests it. A resource version would
// say so of the status as well, which a busy subscription has written every few seconds. With check it only asks whether the API
// server would take it.
func (r *rotation) change(ctx context.Context, sub *v1alpha1.WebhookSubscription, signing v1alpha1.Signing, check bool) error {
	if r.manifests {
		return printManifests(r.out, sub, signing, nil)
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	patch, err := json.Marshal([]operation{
		{"test", "/metadata/uid", sub.UID}, {"test", "/spec/signing", sub.Spec.Signing}, {"replace", "/spec/signing", signing},
	})
	if err != nil {
		return fmt.Errorf("encode the change: %w", err)
	}
	options := []client.PatchOption{client.FieldOwner(managedBy)}
	if check || r.dryRun {
		options = append(options, client.DryRunAll)
	}
	if err := r.kube.Patch(ctx, sub.DeepCopy(), client.RawPatch(types.JSONPatchType, patch), options...); err != nil {
		return fmt.Errorf("change spec.signing, as it was looked at: %w", err)
	}
	if r.dryRun {
		r.say("Nothing was changed. spec.signing would become " + describe(signing) + ".")
	}
	return nil
}

// follow waits until the dispatcher has taken the change up, and says what is next.
func (r *rotation) follow(ctx context.Context) error {
	d, err := r.await(ctx)
	if err != nil {
		return err
	}
	r.explain(d)
	return nil
}

// await looks at the subscription until it waits for the dispatcher no more, or the timeout is over.
func (r *rotation) await(ctx context.Context) (decision, error) {
	over := time.NewTimer(r.timeout)
	defer over.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		sub, err := r.get(ctx)
		if err != nil {
			return decision{}, err
		}
		confirmed := r.confirmed
		if sub.Spec.Signing.PreviousSecretRef != nil || sub.Spec.Signing.NextSecretRef != nil {
			confirmed = "" // the next step is another run's
		}
		d, err := next(sub, confirmed)
		if err != nil || d.step != stepWait {
			return d, err
		}
		select {
		case <-ctx.Done():
			return decision{}, ctx.Err()
		case <-over.C:
			return d, nil
		case <-tick.C:
		}
	}
}

func made(s step, sub *v1alpha1.WebhookSubscription) string {
	if s == stepPromote {
		return "Step 3 of 4 is made: the new key is the current one, and the old one signs beside it."
	}
	return fmt.Sprintf("Step 4 of 4 is made: the old key, %s of Secret %s, signs no more.", sub.Spec.Signing.PreviousSecretRef.Key, sub.Spec.Signing.PreviousSecretRef.Name)
}

func (r *rotation) say(text string) { _, _ = fmt.Fprintln(r.notes, text) }

// explain says what is next, and why it is not made now.
func (r *rotation) explain(d decision) {
	again := fmt.Sprintf("    eventflow keys rotate %s -n %s", r.name, r.namespace)
	switch d.step {
	case stepWait:
		r.say("The next step waits, because " + d.why + ". Run it again then:\n" + again)
	case stepTell:
		which, then := "Step 2 of 4", "the new key becomes the current one"
		if d.ends {
			which, then = "Before step 4 of 4", "the old key ends"
		}
		r.say(fmt.Sprintf("%s: every receiver has to have key %s beside the one that it has. It waits, because only you know that.", which, d.key.ID))
		if d.key.PublicKey != "" {
			r.say("The public key is no secret:\n    " + d.key.PublicKey)
		} else {
			r.say(fmt.Sprintf("Those who may read Secrets read it:\n    kubectl -n %s get secret %s -o go-template='{{index .data %q | base64decode}}'", r.namespace, d.ref.Name, d.ref.Key))
		}
		r.say("Once all have it, " + then + ":\n" + again + " --receivers-have=" + d.key.ID)
	case stepDone:
		r.say(fmt.Sprintf("The rotation is over: %s alone signs, in every pod. Receivers can drop the old key, and its Secret can be deleted if nothing else names it.", d.key.ID))
	case stepAdd:
		r.say("No rotation is under way.")
	default:
		r.say("The next step can be made:\n" + again + " --receivers-have=" + d.key.ID)
	}
}

// describe is spec.signing in a line.
func describe(signing v1alpha1.Signing) string {
	of := func(ref *v1alpha1.SecretKeyReference) string {
		if ref == nil {
			return "none"
		}
		return ref.Name + "/" + ref.Key
	}
	return fmt.Sprintf("current %s, previous %s, next %s", of(&signing.SecretRef), of(signing.PreviousSecretRef), of(signing.NextSecretRef))
}

// partial is the part of a subscription that is printed.
type partial struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       partialSpec       `json:"spec"`
}

type partialSpec struct {
	Signing v1alpha1.Signing `json:"signing"`
}

// printManifests prints what a Git repository is to have for the next step: the part of the subscription, and a new Secret unless it
// is nil.
func printManifests(out io.Writer, sub *v1alpha1.WebhookSubscription, signing v1alpha1.Signing, secret *corev1.Secret) error {
	if secret != nil {
		text, err := secretYAML(secret)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(out, advice, text, "---\n"); err != nil {
			return err
		}
	}
	text, err := encode(partial{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "WebhookSubscription",
		Metadata: map[string]string{"name": sub.Name, "namespace": sub.Namespace}, Spec: partialSpec{signing},
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(out, "# Put spec.signing into the subscription's manifest. Nothing was changed in the cluster.\n", text)
	return err
}
