package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// applied applies a manifest as a GitOps tool does by server-side apply. It forces nothing: a conflict is an error.
func applied(t *testing.T, manifest string, options ...client.ApplyOption) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), object); err != nil {
		t.Fatal(err)
	}
	options = append(options, client.FieldOwner("gitops"))
	if err := api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), options...); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return object
}

// without is an object but for what the API server and the writers of the status keep count of.
func without(object *unstructured.Unstructured) map[string]any {
	content := object.DeepCopy().Object
	for _, field := range [][]string{{"status"}, {"metadata", "managedFields"}, {"metadata", "resourceVersion"}} {
		unstructured.RemoveNestedField(content, field...)
	}
	return content
}

// TestGitOwnsWhatItApplies keeps that the manager writes no field of a spec: what was applied stays as it was, and the same
// once more changes nothing, not even a generation.
func TestGitOwnsWhatItApplies(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	manifests := map[string]string{
		"WebhookDispatcher": fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: main, namespace: %s, labels: {team: platform}}
spec:
  store: {embedded: {size: 1Gi}}
  template: {labels: {team: platform}, priorityClassName: system-cluster-critical}
`, ns),
		"WebhookSubscription": fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: billing, namespace: %[1]s, annotations: {note: from Git}}
spec:
  dispatcherRef: {name: main, namespace: %[1]s}
  url: https://hooks.example.com/in
  events: ["*"]
  signing: {secretRef: {name: key, key: current}}
`, ns),
	}
	first := make(map[string]*unstructured.Unstructured)
	for kind, manifest := range manifests {
		first[kind] = applied(t, manifest)
	}
	d, sub := in(ns, "main", &v1alpha1.WebhookDispatcher{}), in(ns, "billing", &v1alpha1.WebhookSubscription{})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	program(t, sub)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	for kind, manifest := range manifests {
		dry := applied(t, manifest, client.DryRunAll)
		if diff := cmp.Diff(without(first[kind]), without(dry)); diff != "" {
			t.Errorf("%s: a dry run shows (-first +now):\n%s", kind, diff)
		}
		for _, entry := range dry.GetManagedFields() {
			if entry.Manager != "gitops" && entry.Subresource != "status" {
				t.Errorf("%s: %s writes beside the status: %s", kind, entry.Manager, entry.FieldsV1)
			}
		}
	}
}

// TestUnusedDefaultGivesWay has the manager make its dispatcher first, and Git come late.
func TestUnusedStoreGivesWay(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spec string
		want func(*v1alpha1.WebhookDispatcher, *corev1.PersistentVolumeClaim) error
	}{
		"a smaller volume": {`{store: {embedded: {size: 1Gi}}}`, func(_ *v1alpha1.WebhookDispatcher, c *corev1.PersistentVolumeClaim) error {
			if got := c.Spec.Resources.Requests[corev1.ResourceStorage]; got.Cmp(resource.MustParse("1Gi")) != 0 {
				return fmt.Errorf("its size is %s", got.String())
			}
			return nil
		}},
		"another class": {`{store: {embedded: {storageClassName: fast}}}`, func(_ *v1alpha1.WebhookDispatcher, c *corev1.PersistentVolumeClaim) error {
			if ptr.Deref(c.Spec.StorageClassName, "") != "fast" {
				return fmt.Errorf("its class is %v", c.Spec.StorageClassName)
			}
			return nil
		}},
		"another access mode": {`{store: {embedded: {accessMode: ReadWriteOnce}}}`, func(_ *v1alpha1.WebhookDispatcher, c *corev1.PersistentVolumeClaim) error {
			if !slices.Equal(c.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}) {
				return fmt.Errorf("its access modes are %v", c.Spec.AccessModes)
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			applied(t, manifestOf(ns, "{}"))
			d := in(ns, "main", &v1alpha1.WebhookDispatcher{})
			claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
			bound(t, claim)
			used(t, d, "of-the-pod", v1alpha1.StoreUnused)
			before := claim.UID
			applied(t, manifestOf(ns, tt.spec))
			released(t, claim)
			appears(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if c.UID == before {
					return fmt.Errorf("it is still the old one")
				}
				return tt.want(d, c)
			})
			become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
			appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
			if d.Status.Volume.Use == v1alpha1.StoreAbandoned {
				t.Error("the new store still counts as abandoned")
			}
		})
	}
}

func manifestOf(namespace, spec string) string {
	return fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: main, namespace: %s}
spec: %s
`, namespace, spec)
}

// released waits until a claim is being deleted, and lets it go, as the cluster does once no pod uses it.
func released(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	before := claim.UID
	eventually(t, func(ctx context.Context) error {
		err := api.Get(ctx, client.ObjectKeyFromObject(claim), claim)
		switch {
		case apierrors.IsNotFound(err) || err == nil && claim.UID != before:
			return nil
		case err != nil:
			return err
		case claim.DeletionTimestamp.IsZero():
			return fmt.Errorf("the claim is not being deleted")
		}
		claim.Finalizers = nil
		if err := api.Update(ctx, claim); err != nil {
			return err
		}
		return fmt.Errorf("the claim was just let go")
	})
}

func TestUnusedStoreGivesWayToDatabase(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns)
	claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
	bound(t, claim)
	used(t, d, "of-the-pod", v1alpha1.StoreUnused)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { inDatabase(d) })
	released(t, claim)
	absent(t, claim)
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(d *appsv1.Deployment) error {
		if *d.Spec.Replicas != 3 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
}

// TestUsedStoreStays keeps that a volume which may hold events is never deleted, and its pods go on with it.
func TestUsedStoreStays(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]v1alpha1.StoreUse{"used": v1alpha1.StoreUsed, "nobody knows": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			d := dispatcher(t, ns)
			claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
			bound(t, claim)
			if use != "" {
				used(t, d, "of-the-pod", use)
			}
			change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Store.Embedded.Size = resource.MustParse("1Gi") })
			become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonStoreImmutable)
			before := claim.UID
			appears(t, claim, func(c *corev1.PersistentVolumeClaim) error {
				if c.UID != before || !c.DeletionTimestamp.IsZero() {
					t.Error("the volume was deleted")
				}
				return nil
			})
		})
	}
}

// TestFirstEventBeatsDatabase accepts an event after Git named a database, and before the manager did anything about it.
func TestFirstEventBeatsDatabase(t *testing.T) {
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns)
	claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	bound(t, claim)
	used(t, d, "of-the-pod", v1alpha1.StoreUnused)
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { inDatabase(d) })
	used(t, d, "of-the-pod", v1alpha1.StoreUsed)
	manager.start(controllers.Options{})
	c := become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonStoreImmutable)
	if !strings.Contains(c.Message, "set spec.store back") {
		t.Errorf("message %q does not say what to do", c.Message)
	}
	uid := deployment.UID
	appears(t, deployment, func(d *appsv1.Deployment) error {
		if d.UID != uid || !slices.Contains(d.Spec.Template.Spec.Containers[0].Args, "--store=pebble:/data") {
			t.Error("the pods lost their volume")
		}
		return nil
	})
	change(t, d, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Replicas, d.Spec.Store = ptr.To(int32(1)), v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("10Gi")}}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	before := d.DeepCopy()
	inDatabase(d)
	if err := api.Patch(t.Context(), d, client.MergeFrom(before)); !apierrors.IsInvalid(err) {
		t.Errorf("want a store with events kept, got %v", err)
	}
}

// TestNamespaceIsGranted makes a dispatcher where the manager may not make any, and then does what the condition says.
func TestNamespaceIsGranted(t *testing.T) {
	t.Parallel()
	ns := foreign(t)
	d := dispatcher(t, ns)
	c := become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNamespaceNotGranted)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNamespaceNotGranted)
	want := "kubectl create rolebinding eventflow-dispatcher-namespace --namespace=" + ns + " --clusterrole=eventflow-dispatcher-namespace --serviceaccount=eventflow-system:eventflow-manager"
	if !strings.Contains(c.Message, want) {
		t.Errorf("message %q does not say how to grant it", c.Message)
	}
	mayAs(t, statusRole, ns, false)
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: workload}, &rbacv1.Role{}); !apierrors.IsNotFound(err) {
		t.Errorf("the manager made something there (%v)", err)
	}
	if err := bind(t.Context(), "ClusterRole", namespaceRole, ns); err != nil {
		t.Fatal(err)
	}
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	mayAs(t, statusRole, ns, true)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	remove(t, deployment) // it is watched there, too
	appears(t, deployment, exists)
}

// TestManagerMayNot asks for what the manager must not be able to do, with its own token.
func TestManagerMayNot(t *testing.T) {
	t.Parallel()
	ns := foreign(t)
	key := secret(t, ns, "key", map[string]string{"current": signingKey})
	as, err := client.New(managerConfig, client.Options{Scheme: api.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	clusterAdmin := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "stolen-" + ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"data":{"current":"c3RvbGVu"}}`))
	roleRef := client.RawPatch("application/merge-patch+json", []byte(`{"roleRef":{"name":"cluster-admin"}}`))
	for what, err := range map[string]error{
		"writes a tenant's Secret":         as.Patch(t.Context(), key, patch),
		"deletes a tenant's Secret":        as.Delete(t.Context(), key),
		"makes a Secret":                   as.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}}),
		"makes a binding":                  as.Create(t.Context(), clusterAdmin),
		"deletes a binding":                as.Delete(t.Context(), in("", "cluster-admin", &rbacv1.ClusterRoleBinding{})),
		"reads other bindings":             as.List(t.Context(), &rbacv1.ClusterRoleBindingList{}),
		"writes a subscription's spec":     as.Patch(t.Context(), in(ns, "x", &v1alpha1.WebhookSubscription{}), patch),
		"writes a dispatcher's spec":       as.Patch(t.Context(), in(ns, "main", &v1alpha1.WebhookDispatcher{}), patch),
		"makes a Deployment":               as.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}}),
		"makes a Role":                     as.Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}}),
		"reads pods":                       as.List(t.Context(), &corev1.PodList{}, client.InNamespace(ns)),
		"lists ConfigMaps":                 as.List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(ns)),
		"makes its own right in its home":  as.Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: controllers.DefaultNamespace, Name: "x"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}}),
		"turns its binding into an admins": as.Patch(t.Context(), in("", statusRole, &rbacv1.ClusterRoleBinding{}), roleRef),
	} {
		if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("the manager %s (%v)", what, err)
		}
	}
}

// TestSecretLabel is not parallel: it starts the manager with another setting.
func TestSecretLabel(t *testing.T) {
	restart := func(o controllers.Options) {
		t.Helper()
		if err := manager.stop(); err != nil {
			t.Fatal(err)
		}
		manager.start(o)
	}
	restart(controllers.Options{SecretLabel: "hooks.example.com/allowed=true"})
	ns := namespace(t)
	dispatcher(t, ns)
	key := secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	program(t, sub) // so that nothing waits for a dispatcher
	c := become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotAllowed)
	if !strings.Contains(c.Message, "hooks.example.com/allowed=true") {
		t.Errorf("message %q does not name the label", c.Message)
	}
	change(t, key, func(s *corev1.Secret) { s.Labels = map[string]string{"hooks.example.com/allowed": "true"} })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	change(t, key, func(s *corev1.Secret) { s.Labels = nil })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotAllowed)
	restart(controllers.Options{})
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
}

// TestInstallNamespace is not parallel: it installs the manager elsewhere.
func TestInstallNamespace(t *testing.T) {
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	home := managed(t)
	manager.start(controllers.Options{Namespace: home})
	dispatcher(t, home, func(d *v1alpha1.WebhookDispatcher) { d.Name = "default" })
	tenant := foreign(t)
	secret(t, tenant, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(tenant, "billing", func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef = v1alpha1.DispatcherReference{} }))
	program(t, sub)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	eventually(t, func(ctx context.Context) error { // its shard is in the manager's namespace
		shard := routing.ShardName("default", routing.ShardOf(string(sub.UID)))
		return api.Get(ctx, client.ObjectKey{Namespace: home, Name: shard}, &corev1.Secret{})
	})
	if sub.Spec.DispatcherRef.Namespace != "" {
		t.Errorf("the subscription names namespace %s", sub.Spec.DispatcherRef.Namespace)
	}
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	manager.start(controllers.Options{})
}

// TestImageOfTheManager is not parallel: it starts the manager as a pod.
func TestImageOfTheManager(t *testing.T) {
	restart := func(o controllers.Options) {
		t.Helper()
		if err := manager.stop(); err != nil {
			t.Fatal(err)
		}
		manager.start(o)
	}
	const image = "registry.example.com/eventflow:of-the-manager"
	create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: controllers.DefaultNamespace, Name: "manager"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false), ServiceAccountName: managerUser,
			Containers: []corev1.Container{{Name: "manager", Image: image}},
		},
	})
	restart(controllers.Options{Pod: "manager"})
	defer restart(controllers.Options{})
	ns := namespace(t)
	dispatcher(t, ns)
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(d *appsv1.Deployment) error {
		if got := d.Spec.Template.Spec.Containers[0].Image; got != image {
			return fmt.Errorf("image %s", got)
		}
		return nil
	})
}

// TestTemplateIsLaidOver sets what users of other operators set.
func TestTemplateIsLaidOver(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Template = v1alpha1.PodTemplate{
			Labels:                    map[string]string{"team": "platform"},
			Annotations:               map[string]string{"sidecar.istio.io/inject": "false"},
			ServiceAccountAnnotations: map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"},
			PriorityClassName:         "important",
			ImagePullSecrets:          []corev1.LocalObjectReference{{Name: "registry"}},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.ScheduleAnyway}},
			Env:                       []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "900MiB"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
			EnvFrom:                   []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "proxy"}}}},
			Volumes:                   []v1alpha1.TemplateVolume{{Name: "tls", Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}},
			VolumeMounts:              []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}},
			SecurityContext:           &corev1.PodSecurityContext{FSGroup: ptr.To(int64(2000))},
		}
		d.Spec.Service = v1alpha1.ServiceTemplate{
			Type: "NodePort", Annotations: map[string]string{"lb": "internal"},
			IPFamilyPolicy: corev1.IPFamilyPolicyPreferDualStack, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		}
	})
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	template := deployment.Spec.Template
	pod, container := template.Spec, template.Spec.Containers[0]
	if template.Labels["team"] != "platform" || template.Labels["app.kubernetes.io/instance"] != "main" || template.Annotations["sidecar.istio.io/inject"] != "false" {
		t.Errorf("labels %v, annotations %v", template.Labels, template.Annotations)
	}
	if pod.PriorityClassName != "important" || len(pod.ImagePullSecrets) != 1 || pod.ImagePullSecrets[0].Name != "registry" ||
		len(pod.TopologySpreadConstraints) != 1 || pod.TopologySpreadConstraints[0].TopologyKey != "zone" {
		t.Errorf("pod %+v", pod)
	}
	if len(container.Env) != 3 || container.Env[2].ValueFrom.FieldRef.FieldPath != "spec.nodeName" || len(container.EnvFrom) != 1 {
		t.Errorf("environment %+v, from %+v", container.Env, container.EnvFrom)
	}
	if len(pod.Volumes) != 3 || pod.Volumes[2].Secret.SecretName != "tls" || len(container.VolumeMounts) != 3 || container.VolumeMounts[2].MountPath != "/tls" {
		t.Errorf("volumes %+v, mounts %+v", pod.Volumes, container.VolumeMounts)
	}
	security := pod.SecurityContext
	if security.RunAsUser != nil || *security.FSGroup != 2000 || !*security.RunAsNonRoot || security.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context %+v", security)
	}
	appears(t, in(ns, workload, &corev1.ServiceAccount{}), func(a *corev1.ServiceAccount) error {
		if a.Annotations["eks.amazonaws.com/role-arn"] == "" {
			return fmt.Errorf("annotations %v", a.Annotations)
		}
		return nil
	})
	appears(t, in(ns, workload, &corev1.Service{}), func(s *corev1.Service) error {
		if s.Spec.Type != corev1.ServiceTypeNodePort || s.Annotations["lb"] != "internal" || *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
			return fmt.Errorf("service %+v", s.Spec)
		}
		return nil
	})
}
