package keys

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// run makes a run on objects, and returns what it printed.
func run(t *testing.T, kube client.Client, change func(*rotation)) (string, error) {
	t.Helper()
	var out strings.Builder
	r := &rotation{kube: kube, out: &out, notes: &out, namespace: "clinic-a", name: "billing", timeout: time.Nanosecond}
	if change != nil {
		change(r)
	}
	err := r.run(t.Context())
	return out.String(), err
}

func clusterOf(t *testing.T, functions interceptor.Funcs, objects ...client.Object) client.Client {
	t.Helper()
	scheme, mapper, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper).WithObjects(objects...).WithInterceptorFuncs(functions).Build()
}

func signingOf(t *testing.T, kube client.Client) v1alpha1.Signing {
	t.Helper()
	s := &v1alpha1.WebhookSubscription{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "clinic-a", Name: "billing"}, s); err != nil {
		t.Fatal(err)
	}
	return s.Spec.Signing
}

func secretsOf(t *testing.T, kube client.Client) []corev1.Secret {
	t.Helper()
	var all corev1.SecretList
	if err := kube.List(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	return all.Items
}

// TestFirstStep makes a key that dispatchers take, in a Secret of its own. A run that was interrupted is repeated with that key.
func TestFirstStep(t *testing.T) {
	t.Parallel()
	for scheme, prefix := range map[v1alpha1.SignatureScheme]string{"": "whsec_", v1alpha1.SchemeShared: "whsec_", v1alpha1.SchemePair: "whsk_"} {
		refuse := true
		kube := clusterOf(t, interceptor.Funcs{Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			var asked client.PatchOptions
			asked.ApplyOptions(options)
			if refuse && len(asked.DryRun) == 0 {
				return errors.New("the connection was lost")
			}
			return c.Patch(ctx, object, patch, options...)
		}}, sub("a", nil, nil, "A"))
		with := func(r *rotation) { r.scheme, r.labels = scheme, map[string]string{"hooks": "yes"} }
		if out, err := run(t, kube, with); err == nil {
			t.Errorf("a change that failed: %s", out)
		}
		refuse = false
		out, err := run(t, kube, with)
		made := secretsOf(t, kube)
		if err != nil || len(made) != 1 || made[0].Labels["hooks"] != "yes" || !strings.Contains(out, "Step 1 of 4 is made. It reuses the key in Secret "+made[0].Name+", made at ") {
			t.Fatalf("%d Secrets, %v: %s", len(made), err, out)
		}
		text := made[0].Data["key"]
		if _, err := signature.ParseKey(text); err != nil || !strings.HasPrefix(string(text), prefix) {
			t.Errorf("scheme %q: the key is no %s key (%v)", scheme, prefix, err)
		}
		if strings.Contains(out, string(text[7:20])) {
			t.Errorf("the key is printed: %s", out)
		}
		if got := signingOf(t, kube); got.SecretRef.Name != "a" || got.NextSecretRef == nil || got.NextSecretRef.Name != made[0].Name || got.NextSecretRef.Key != "key" {
			t.Errorf("spec.signing is %s", describe(got))
		}
	}
}

// TestKeyIsMadeAgain: a step that was taken back and is made again has the same key, and says so. Labels that the Secret lacks are
// not passed over.
func TestKeyIsMadeAgain(t *testing.T) {
	t.Parallel()
	kube := clusterOf(t, interceptor.Funcs{}, sub("a", nil, nil, "A"))
	with := func(change func(*rotation)) string {
		t.Helper()
		out, err := run(t, kube, change)
		if err != nil {
			t.Fatal(out, err)
		}
		return out
	}
	if out := with(nil); !strings.Contains(out, "has a new key") {
		t.Error(out)
	}
	made := secretsOf(t, kube)
	remove := "kubectl -n clinic-a delete secret " + made[0].Name
	if out := with(func(r *rotation) { r.undo = true }); !strings.Contains(out, remove) {
		t.Error(out)
	}
	out, err := run(t, kube, func(r *rotation) { r.labels = map[string]string{"hooks": "yes"} })
	if want := "kubectl -n clinic-a label --overwrite secret " + made[0].Name + " hooks=yes"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v: %s", want, err, out)
	}
	if got := describe(signingOf(t, kube)); got != "current a/key, previous none, next none" {
		t.Errorf("spec.signing is %s", got)
	}
	if out := with(nil); strings.Contains(out, "new key, which") || !strings.Contains(out, "reuses the key in Secret "+made[0].Name+", made at ") {
		t.Error(out)
	}
	if again := secretsOf(t, kube); len(again) != 1 || !bytes.Equal(again[0].Data["key"], made[0].Data["key"]) {
		t.Error("the Secret was changed")
	}
}

// TestSchemeIsThatOfTheCurrentKey: a pair is followed by a pair, and where the status does not say it, nothing is guessed.
func TestSchemeIsThatOfTheCurrentKey(t *testing.T) {
	t.Parallel()
	pair := sub("a", nil, nil, "A")
	pair.Status.Signing.Keys[0].Scheme = v1alpha1.SchemePair
	kube := clusterOf(t, interceptor.Funcs{}, pair)
	if out, err := run(t, kube, nil); err != nil || !strings.HasPrefix(string(secretsOf(t, kube)[0].Data["key"]), "whsk_") {
		t.Error("the key that follows a pair is no pair", out, err)
	}
	for _, manifests := range []bool{false, true} {
		kube = clusterOf(t, interceptor.Funcs{}, sub("a", nil, nil))
		out, err := run(t, kube, func(r *rotation) { r.manifests = manifests })
		if err == nil || !strings.Contains(err.Error(), "--scheme=v1a for a pair") || out != "" || len(secretsOf(t, kube)) != 0 {
			t.Errorf("without a status: %v: %s", err, out)
		}
	}
}

// TestNoManifest: where -o yaml has none to print, standard output is empty, and the run fails.
func TestNoManifest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sub       *v1alpha1.WebhookSubscription
		confirmed string
		want      string
	}{
		"told":    {sub("a", nil, ref("b"), "A", "B"), "", "Step 2 of 4"},
		"waiting": {sub("a", nil, ref("b"), "A"), "B", "The next step waits"},
		"over":    {sub("b", nil, nil, "B"), "B", "The rotation is over"},
	} {
		var out, notes strings.Builder
		r := &rotation{kube: clusterOf(t, interceptor.Funcs{}, test.sub), out: &out, notes: &notes, namespace: "clinic-a", name: "billing", manifests: true, confirmed: test.confirmed}
		if err := r.run(t.Context()); err == nil || out.Len() > 0 || !strings.Contains(notes.String(), test.want) {
			t.Errorf("%s: %v\nstandard output: %s\nstandard error: %s", name, err, out.String(), notes.String())
		}
	}
}

// TestNothingIsChanged by a dry run, by -o yaml, of what something else owns, and where a Secret of the same name is not this
// rotation's.
func TestNothingIsChanged(t *testing.T) {
	t.Parallel()
	yes := true
	plain := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "clinic-a", Name: "a"}}
	argo := sub("a", nil, nil, "A")
	argo.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "x"}
	flux := plain.DeepCopy()
	flux.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}
	external := plain.DeepCopy()
	external.OwnerReferences = []metav1.OwnerReference{{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "a", UID: "1", Controller: &yes}}
	foreign := newSecret(sub("a", nil, nil), v1alpha1.SchemeShared, nil)
	foreign.Annotations = nil
	pair := newSecret(sub("a", nil, nil), v1alpha1.SchemePair, nil)
	for name, test := range map[string]struct {
		objects []client.Object
		change  func(*rotation)
		want    string
		wantErr bool
	}{
		"dry run":                     {[]client.Object{sub("a", nil, nil, "A")}, func(r *rotation) { r.dryRun = true }, "would become current a/key, previous none, next billing-key-", false},
		"dry run of the third":        {[]client.Object{sub("a", nil, ref("b"), "A", "B")}, func(r *rotation) { r.dryRun, r.confirmed = true, "B" }, "would become current b/key, previous a/key, next none", false},
		"manifests":                   {[]client.Object{sub("a", nil, nil, "A")}, func(r *rotation) { r.manifests = true }, "stringData", false},
		"manifests of the third":      {[]client.Object{sub("a", nil, ref("b"), "A", "B")}, func(r *rotation) { r.manifests, r.confirmed = true, "B" }, "previousSecretRef:", false},
		"manifests, Argo CD owns":     {[]client.Object{argo}, func(r *rotation) { r.manifests = true }, "kubeseal", false},
		"Argo CD owns it":             {[]client.Object{argo}, nil, "Argo CD owns the subscription", true},
		"Argo CD owns it, undo":       {[]client.Object{argo}, func(r *rotation) { r.undo = true }, "Argo CD owns the subscription", true},
		"Flux owns the Secret":        {[]client.Object{sub("a", nil, nil, "A"), flux}, nil, "Flux owns Secret a", true},
		"External Secrets makes it":   {[]client.Object{sub("a", nil, nil, "A"), external}, nil, "a controller of ExternalSecret owns Secret a", true},
		"a Secret of that name":       {[]client.Object{sub("a", nil, nil, "A"), foreign}, nil, "cannot be used", true},
		"one of the other scheme":     {[]client.Object{sub("a", nil, nil, "A"), pair}, nil, "cannot be used", true},
		"told, and no more":           {[]client.Object{sub("a", nil, ref("b"), "A", "B")}, nil, "--receivers-have=B", false},
		"promoted, and no more":       {[]client.Object{sub("b", ref("a"), nil, "B", "A")}, nil, "Before step 4 of 4", false},
		"another key":                 {[]client.Object{sub("a", nil, ref("b"), "A", "B")}, func(r *rotation) { r.confirmed = "C" }, "have to have key B, not C", true},
		"undo of nothing":             {[]client.Object{sub("a", nil, nil, "A")}, func(r *rotation) { r.undo = true }, "no step to take back", true},
		"over, said once more":        {[]client.Object{sub("b", nil, nil, "B")}, func(r *rotation) { r.confirmed = "B" }, "The rotation is over: B alone signs", false},
		"no such subscription":        {nil, nil, "read the subscription", true},
		"the dispatcher is behind it": {[]client.Object{sub("a", nil, ref("b"), "A")}, func(r *rotation) { r.confirmed = "B" }, "The next step waits, because 1 key signs", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kube := clusterOf(t, interceptor.Funcs{}, test.objects...)
			versions := func() (all string) {
				for _, object := range test.objects {
					into := object.DeepCopyObject().(client.Object)
					if err := kube.Get(t.Context(), client.ObjectKeyFromObject(object), into); err != nil {
						t.Fatal(err)
					}
					all += into.GetResourceVersion() + " "
				}
				return all
			}
			before, secrets := versions(), len(secretsOf(t, kube))
			out, err := run(t, kube, test.change)
			if err != nil {
				out += err.Error()
			}
			if (err != nil) != test.wantErr || !strings.Contains(out, test.want) {
				t.Errorf("want %q, got (%v)\n%s", test.want, err, out)
			}
			if versions() != before || len(secretsOf(t, kube)) != secrets {
				t.Error("something was changed")
			}
		})
	}
}

// TestManifests: what -o yaml prints is what kubectl and Git take, and holds the key once.
func TestManifests(t *testing.T) {
	t.Parallel()
	out, err := run(t, clusterOf(t, interceptor.Funcs{}, sub("a", nil, nil, "A")), func(r *rotation) { r.manifests, r.scheme = true, v1alpha1.SchemePair })
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(out, "---\n")
	var secret corev1.Secret
	var part v1alpha1.WebhookSubscription
	if err := errors.Join(yaml.UnmarshalStrict([]byte(first), &secret), yaml.UnmarshalStrict([]byte(second), &part)); err != nil {
		t.Fatal(err, out)
	}
	if _, err := signature.ParseKey([]byte(secret.StringData["key"])); err != nil || part.Spec.Signing.NextSecretRef == nil || part.Spec.Signing.NextSecretRef.Name != secret.Name || part.Spec.Signing.SecretRef.Name != "a" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRotationIsOfWhatWasLookedAt: of two users who make the same step at once, one makes it.
func TestRotationIsOfWhatWasLookedAt(t *testing.T) {
	t.Parallel()
	var other func()
	kube := clusterOf(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
		err := c.Get(ctx, key, object, options...)
		if _, is := object.(*v1alpha1.WebhookSubscription); is && other != nil {
			then := other
			other = nil
			then()
		}
		return err
	}}, sub("a", nil, ref("b"), "A", "B"))
	other = func() {
		if out, err := run(t, kube, func(r *rotation) { r.confirmed = "B" }); err != nil {
			t.Error(out, err)
		}
	}
	out, err := run(t, kube, func(r *rotation) { r.confirmed = "B" })
	if err == nil {
		t.Errorf("the step was made twice: %s", out)
	}
	if got := describe(signingOf(t, kube)); got != "current b/key, previous a/key, next none" {
		t.Errorf("spec.signing is %s", got)
	}
}

// TestOwnerIsNotKnown: without the right to read Secrets, the first step needs none but to create one.
func TestOwnerIsNotKnown(t *testing.T) {
	t.Parallel()
	kube := clusterOf(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
		if object.GetObjectKind().GroupVersionKind().Kind == "Secret" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("no"))
		}
		return c.Get(ctx, key, object, options...)
	}}, sub("a", nil, nil, "A"))
	if out, err := run(t, kube, nil); err != nil || !strings.Contains(out, "Step 1 of 4 is made") {
		t.Error(out, err)
	}
}

// TestShow: ids and places, and nothing that a Secret holds: none is read.
func TestShow(t *testing.T) {
	t.Parallel()
	kube := clusterOf(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
		if _, is := object.(*v1alpha1.WebhookSubscription); !is {
			t.Error("something else is read")
		}
		return c.Get(ctx, key, object, options...)
	}}, sub("b", ref("a"), ref("c"), "B", "A", "C"))
	for output, want := range map[string][]string{
		"text": {"current", "b/key", "previous", "a/key", "next", "c/key", "v1"}, "json": {`"use": "next"`, `"secret": "c"`, `"id": "A"`},
	} {
		var out strings.Builder
		if err := show(t.Context(), kube, &out, "clinic-a", "billing", output); err != nil {
			t.Fatal(err)
		}
		for _, one := range want {
			if !strings.Contains(out.String(), one) {
				t.Errorf("%s lacks %q:\n%s", output, one, out.String())
			}
		}
	}
	var out strings.Builder
	behind := clusterOf(t, interceptor.Funcs{}, sub("b", ref("a"), nil, "B"))
	if err := show(t.Context(), behind, &out, "clinic-a", "billing", "text"); err != nil || !strings.Contains(out.String(), "not certain now: 1 key signs") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestFlags: what is no good is refused with exit code 2, before any cluster is asked.
func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"rotate"}, {"rotate", "a", "b"}, {"rotate", "a", "--scheme=v2"}, {"rotate", "a", "-o", "json"}, {"rotate", "a", "--secret-label=x"},
		{"rotate", "a", "--undo", "--receivers-have=key_a"}, {"rotate", "a", "--nonsense"}, {"show"}, {"show", "a", "-o", "yaml"},
	} {
		command := Command()
		command.SilenceErrors, command.SilenceUsage = true, true
		command.SetArgs(args)
		err := command.ExecuteContext(t.Context())
		var coded interface{ ExitCode() int }
		if !errors.As(err, &coded) || coded.ExitCode() != 2 {
			t.Errorf("%q: %v", args, err)
		}
	}
}
