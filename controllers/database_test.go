package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	podstatus "github.com/clinikapi/eventflow/dispatcher/status"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

const databaseURL = "postgresql://app:canary@pg-rw/app"

// certificates are an authority's, in PEM.
func certificates(t *testing.T) string {
	t.Helper()
	authority, err := postgrestest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return string(authority.PEM())
}

// inDatabase makes a dispatcher one with a database, whose URL is in Secret "pg-app".
func inDatabase(d *v1alpha1.WebhookDispatcher) {
	d.Spec.Replicas = ptr.To(int32(3))
	d.Spec.Store = v1alpha1.Store{Postgres: &v1alpha1.PostgresStore{
		ConnectionSecretRef: v1alpha1.SecretKeyReference{Name: "pg-app", Key: "uri"},
	}}
}

func verified(d *v1alpha1.WebhookDispatcher) {
	d.Spec.Store.Postgres.CASecretRef = &v1alpha1.SecretKeyReference{Name: "pg-ca", Key: "ca.crt"}
}

// version is that of the Secrets by which a Deployment's pods connect.
func version(d *appsv1.Deployment) string {
	return d.Spec.Template.Annotations["webhooks.clinikapi.com/connection-version"]
}

func TestDispatcherOnDatabase(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	secret(t, ns, "pg-ca", map[string]string{"ca.crt": certificates(t), "ca.key": "canary"})
	d := dispatcher(t, ns, inDatabase, verified, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Template.Annotations = map[string]string{"team": "platform"}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)

	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	strategy, pod := deployment.Spec.Strategy, deployment.Spec.Template.Spec
	if *deployment.Spec.Replicas != 3 || strategy.Type != appsv1.RollingUpdateDeploymentStrategyType ||
		strategy.RollingUpdate.MaxUnavailable.String() != "0" || strategy.RollingUpdate.MaxSurge.String() != "1" {
		t.Errorf("%d replicas, strategy %+v", *deployment.Spec.Replicas, strategy)
	}
	if version(deployment) == "" || deployment.Spec.Template.Annotations["team"] != "platform" {
		t.Errorf("annotations %v", deployment.Spec.Template.Annotations)
	}
	container := pod.Containers[0]
	wantEnv := []corev1.EnvVar{
		{Name: "EVENTFLOW_PROGRAMMED_BY_REVISION", Value: "true"},
		{Name: "EVENTFLOW_STORE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "pg-app"}, Key: "uri",
		}}},
		{Name: "PGSSLMODE", Value: "verify-full"},
		{Name: "PGSSLROOTCERT", Value: "/etc/eventflow/database-ca/ca.crt"},
	}
	if diff := cmp.Diff(wantEnv, container.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if !slices.Contains(container.Args, "--state-dir=/state") || slices.ContainsFunc(container.Args, func(arg string) bool { return strings.HasPrefix(arg, "--store") }) {
		t.Errorf("arguments %v", container.Args)
	}
	checkDatabaseVolumes(t, pod)
	if len(pod.TopologySpreadConstraints) != 1 {
		t.Fatalf("topology spread %+v", pod.TopologySpreadConstraints)
	}
	if c := pod.TopologySpreadConstraints[0]; c.TopologyKey != "kubernetes.io/hostname" || c.WhenUnsatisfiable != corev1.ScheduleAnyway ||
		c.LabelSelector.MatchLabels["app.kubernetes.io/instance"] != "main" {
		t.Errorf("topology spread %+v", c)
	}
	budget := appears(t, in(ns, workload, &policyv1.PodDisruptionBudget{}), exists)
	if budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("maxUnavailable %v", budget.Spec.MaxUnavailable)
	}
	claim := in(ns, workload+"-store", &corev1.PersistentVolumeClaim{})
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); !apierrors.IsNotFound(err) {
		t.Errorf("it has a claim (%v)", err)
	}
}

func checkDatabaseVolumes(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	wantMounts := []corev1.VolumeMount{
		{Name: "state", MountPath: "/state"},
		{Name: "database-ca", MountPath: "/etc/eventflow/database-ca", ReadOnly: true},
		{Name: "ingest-certificate", MountPath: "/etc/eventflow/ingest", ReadOnly: true},
	}
	if diff := cmp.Diff(wantMounts, pod.Containers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if len(pod.Volumes) != 3 || pod.Volumes[0].EmptyDir == nil || pod.Volumes[0].EmptyDir.SizeLimit.IsZero() || pod.Volumes[1].Secret == nil {
		t.Fatalf("volumes %+v", pod.Volumes)
	}
	ca := pod.Volumes[1].Secret
	if diff := cmp.Diff([]corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}, ca.Items); diff != "" || ca.SecretName != "pg-ca" {
		t.Errorf("of Secret %s the pod gets (-want +got):\n%s", ca.SecretName, diff)
	}
}

func TestDatabaseWithAffinityIsNotSpread(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	dispatcher(t, ns, inDatabase, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Template.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}}
	})
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	if got := deployment.Spec.Template.Spec.TopologySpreadConstraints; len(got) != 0 {
		t.Errorf("topology spread %+v", got)
	}
	if env := deployment.Spec.Template.Spec.Containers[0].Env; len(env) != 2 || env[1].Name != "EVENTFLOW_STORE" {
		t.Errorf("environment %+v", env)
	}
}

func TestDatabaseSecretMissing(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, inDatabase, verified)
	c := become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	if !strings.Contains(c.Message, "pg-app") || !strings.Contains(c.Message, "create it") {
		t.Errorf("message %q does not say what to do", c.Message)
	}
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	appears(t, in(ns, workload, &corev1.Service{}), exists)
	deployment := in(ns, workload, &appsv1.Deployment{})
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment); !apierrors.IsNotFound(err) {
		t.Errorf("there are pods that could not start (%v)", err)
	}

	url := secret(t, ns, "pg-app", map[string]string{"URI": databaseURL})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretKeyMissing)
	change(t, url, func(s *corev1.Secret) { s.Data["uri"] = []byte("host=db password=canary") })
	c = become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretKeyInvalid)
	if strings.Contains(c.Message, "canary") {
		t.Errorf("message %q says what is in the Secret", c.Message)
	}
	change(t, url, func(s *corev1.Secret) { s.Data["uri"] = []byte(databaseURL) })
	c = become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	if !strings.Contains(c.Message, "pg-ca") {
		t.Errorf("message %q does not name the Secret", c.Message)
	}
	secret(t, ns, "pg-ca", map[string]string{"ca.crt": certificates(t)})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	appears(t, deployment, exists)
}

func TestDatabaseSecretChanges(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	url := secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	ca := secret(t, ns, "pg-ca", map[string]string{"ca.crt": certificates(t)})
	d := dispatcher(t, ns, inDatabase, verified)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	for name, edit := range map[string]func(){
		"URL":          func() { change(t, url, func(s *corev1.Secret) { s.Data["uri"] = []byte(databaseURL + "2") }) },
		"certificates": func() { change(t, ca, func(s *corev1.Secret) { s.Data["ca.crt"] = []byte(certificates(t)) }) },
	} {
		before := version(deployment)
		edit()
		appears(t, deployment, func(d *appsv1.Deployment) error {
			if version(d) == before {
				return fmt.Errorf("the pods keep the old %s", name)
			}
			return nil
		})
	}

	// Pods that run go on without it; what else the spec says takes effect.
	before := version(deployment)
	remove(t, url)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = ptr.To(int32(2)) })
	appears(t, deployment, func(d *appsv1.Deployment) error {
		if *d.Spec.Replicas != 2 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	if version(deployment) != before {
		t.Error("the pods roll although their Secret is gone")
	}
}

func TestStoreCannotBeSwitched(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	before := d.DeepCopy()
	inDatabase(d)
	if err := api.Patch(t.Context(), d, client.MergeFrom(before)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("want the switch refused, got %v", err)
	}
}

// TestStoreReadyIsSaidByPods asks as a dispatcher's pod.
func TestStoreReadyIsSaidByPods(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns, inDatabase)
	other := dispatcher(t, ns, inDatabase, func(d *v1alpha1.WebhookDispatcher) { d.Name = "other" })
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)

	pod, err := client.New(asPod(ns), client.Options{Scheme: api.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	say := func(ctx context.Context, d *v1alpha1.WebhookDispatcher, reason string) error {
		patch := fmt.Sprintf(`{"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookDispatcher","status":{"store":{"reason":%q}}}`, reason)
		target := in(ns, d.Name, &v1alpha1.WebhookDispatcher{})
		return pod.Status().Patch(ctx, target, client.RawPatch(types.ApplyPatchType, []byte(patch)), client.FieldOwner("eventflow-dispatcher"), client.ForceOwnership)
	}
	eventually(t, func(ctx context.Context) error { // RBAC takes a moment
		return say(ctx, d, v1alpha1.ReasonDatabaseUnreachable)
	})
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDatabaseUnreachable)
	become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonDatabaseUnreachable)
	if err := say(t.Context(), d, v1alpha1.ReasonStoreReady); err != nil {
		t.Error(err)
	}
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
	become(t, d, v1alpha1.ConditionStoreReady, metav1.ConditionTrue, v1alpha1.ReasonStoreReady)
	if len(conditionsOf(d)) != 5 { // Accepted, Available, StoreReady, Ready and Reconciling
		t.Errorf("conditions %+v", conditionsOf(d))
	}
	spec := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":1}}`))
	for what, err := range map[string]error{
		"another dispatcher's status":  say(t.Context(), other, v1alpha1.ReasonStoreReady),
		"its own spec":                 pod.Patch(t.Context(), in(ns, d.Name, &v1alpha1.WebhookDispatcher{}), spec),
		"the Secret of its connection": pod.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "pg-app"}, &corev1.Secret{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("a pod has access to %s (%v)", what, err)
		}
	}
}

// asPod is how a pod of the dispatcher "main" is known to the API server.
func asPod(namespace string) *rest.Config {
	config := rest.CopyConfig(restConfig)
	config.Impersonate.UserName = "system:serviceaccount:" + namespace + ":" + workload
	return config
}

// TestStoreReadyTellsWhy opens databases that cannot be used, and looks for the reason in the dispatcher's conditions.
func TestStoreReadyTellsWhy(t *testing.T) {
	t.Parallel()
	database, err := postgrestest.Start(postgrestest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Stop() })
	open := func(url string) error {
		store, err := postgres.Open(t.Context(), postgres.Options{URL: url})
		if err != nil {
			return err
		}
		return store.Close()
	}
	for _, statement := range []string{"CREATE ROLE canary LOGIN", "CREATE DATABASE newer", "CREATE DATABASE fit"} {
		if err := database.Exec(t.Context(), "postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{ // a server of the past, as far as is asked
		"CREATE SCHEMA past",
		"CREATE FUNCTION past.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''140012'''",
	} {
		if err := database.Exec(t.Context(), "fit", statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(database.URL("newer")); err != nil {
		t.Fatal(err)
	}
	if err := database.Exec(t.Context(), "newer", "UPDATE eventflow.meta SET version = 999, oldest_compatible = 999"); err != nil {
		t.Fatal(err)
	}

	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns, inDatabase)
	reporter, err := podstatus.NewStoreReporter(asPod(ns), ns, d.Name, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		url        string
		wantReason string
	}{
		{"postgres://canary@127.0.0.1:1/fit", v1alpha1.ReasonDatabaseUnreachable},
		{strings.Replace(database.URL("fit"), "postgres@", "canary@", 1), v1alpha1.ReasonSchemaNotMigrated},
		{database.URL("fit") + "&search_path=past,pg_catalog", v1alpha1.ReasonDatabaseTooOld},
		{database.URL("newer"), v1alpha1.ReasonSchemaNewer},
		{database.URL("fit"), v1alpha1.ReasonStoreReady},
	} {
		opened := open(test.url)
		eventually(t, func(ctx context.Context) error { // RBAC takes a moment
			reporter.Report(ctx, opened)
			if err := api.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
				return err
			}
			if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionStoreReady); c == nil || c.Reason != test.wantReason {
				return fmt.Errorf("want reason %s of StoreReady, have %+v: %w", test.wantReason, c, opened)
			}
			return nil
		})
		if test.wantReason == v1alpha1.ReasonStoreReady {
			become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
			continue
		}
		c := become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, test.wantReason)
		if strings.Contains(c.Message, "canary") || strings.Contains(c.Message, "127.0.0.1") {
			t.Errorf("message %q says who connects where", c.Message)
		}
	}
}
