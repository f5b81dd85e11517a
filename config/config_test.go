package config_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

var (
	environment = &envtest.Environment{}
	apiServer   client.Client
	kubeconfig  string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "eventflow-config")
	if err != nil {
		return fail("make a folder for the kubeconfig", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	config, err := environment.Start()
	if err != nil {
		return fail("start the API server (make test finds or builds one; by hand: export KUBEBUILDER_ASSETS=$(hack/controlplane/assets))", err)
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			fail("stop the API server", err)
		}
	}()
	if apiServer, err = client.New(config, client.Options{}); err != nil {
		return fail("make a client", err)
	}
	kubeconfig = filepath.Join(folder, "kubeconfig")
	if err := os.WriteFile(kubeconfig, environment.KubeConfig, 0o600); err != nil {
		return fail("write the kubeconfig", err)
	}
	return m.Run()
}

func fail(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", doing, err)
	return 1
}

// TestInstall applies config/default to an empty cluster and then, as a user would, the samples; once more changes
// nothing.
func TestInstall(t *testing.T) {
	for _, folder := range []string{"default", "samples"} {
		output := kubectl(t, "apply", "-k", folder)
		// a Deployment whose pods the namespace's pod security would refuse is only warned of
		if strings.Contains(output, "Warning") {
			t.Errorf("apply -k %s: want no warning, got:\n%s", folder, output)
		}
		if folder == "default" {
			kubectl(t, "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=eventflow")
		}
	}
	const budget = "poddisruptionbudget/eventflow-manager"
	before := kubectl(t, "--namespace=eventflow-system", "get", budget, "-o", "jsonpath={.metadata.resourceVersion}")
	for _, folder := range []string{"default", "samples"} {
		again := kubectl(t, "apply", "-k", folder)
		for line := range strings.Lines(again) {
			sent := strings.Contains(line, "secret/") || strings.Contains(line, "poddisruptionbudget") // of both, kubectl always sends something
			if !sent && !strings.HasSuffix(strings.TrimSpace(line), " unchanged") {
				t.Errorf("apply -k %s again: want nothing changed, got %s", folder, line)
			}
		}
	}
	if after := kubectl(t, "--namespace=eventflow-system", "get", budget, "-o", "jsonpath={.metadata.resourceVersion}"); after != before {
		t.Errorf("the second apply changes %s", budget)
	}
	t.Run("access", testAccess)
	t.Run("secret policy", testSecretPolicy)
	t.Run("owned by Git", testGitOps)
	t.Run("scale", testScale)
	t.Run("documents", testDocuments)
	t.Run("further samples", testSamples)
	t.Run("undeploy", testUndeploy)
}

// testAccess asks the API server who may do what. Its own roles view, edit and admin are put together by a controller
// that does not run here, so what they are made of is asked for.
func testAccess(t *testing.T) {
	for _, role := range []string{"viewer", "editor", "admin", "dispatcher-admin", "puller"} {
		kubectl(t, "create", "rolebinding", role, "--clusterrole=eventflow-"+role, "--user="+role, "--namespace=clinic-a")
	}
	const (
		webhooks  = "webhooks.clinikapi.com"
		core      = "core" // the group with no name
		manager   = "system:serviceaccount:eventflow-system:eventflow-manager"
		autoscale = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
		publisher = "system:serviceaccount:clinic-a:ehr"
	)
	for name, tt := range map[string]struct {
		who, verb, resource, namespace string
		group, name                    string // webhooks, and any, if left out
		want                           bool
	}{
		"publisher publishes":                    {who: publisher, verb: "create", resource: "webhookevents", namespace: "clinic-a", want: true},
		"publisher publishes for another tenant": {who: publisher, verb: "create", resource: "webhookevents", namespace: "clinic-b"},
		"publisher reads deliveries":             {who: publisher, verb: "list", resource: "webhookdeliveries", namespace: "clinic-a"},
		"viewer reads subscriptions":             {who: "viewer", verb: "list", resource: "webhooksubscriptions", namespace: "clinic-a", want: true},
		"viewer reads deliveries":                {who: "viewer", verb: "list", resource: "webhookdeliveries", namespace: "clinic-a", want: true},
		"viewer replays":                         {who: "viewer", verb: "update", resource: "webhookdeliveries", namespace: "clinic-a"},
		"viewer writes subscriptions":            {who: "viewer", verb: "create", resource: "webhooksubscriptions", namespace: "clinic-a"},
		"editor writes subscriptions":            {who: "editor", verb: "create", resource: "webhooksubscriptions", namespace: "clinic-a", want: true},
		"editor writes status":                   {who: "editor", verb: "patch", resource: "webhooksubscriptions/status", namespace: "clinic-a"},
		"editor replays":                         {who: "editor", verb: "update", resource: "webhookdeliveries", namespace: "clinic-a", want: true},
		"viewer makes replays":                   {who: "viewer", verb: "create", resource: "webhookreplays", namespace: "clinic-a"},
		"editor makes replays":                   {who: "editor", verb: "create", resource: "webhookreplays", namespace: "clinic-a", want: true},
		"editor makes replays elsewhere":         {who: "editor", verb: "create", resource: "webhookreplays", namespace: "clinic-b"},
		"editor writes how far a replay is":      {who: "editor", verb: "patch", resource: "webhookreplays/status", namespace: "clinic-a"},
		"publisher makes replays":                {who: publisher, verb: "create", resource: "webhookreplays", namespace: "clinic-a"},
		"manager makes replays":                  {who: manager, verb: "create", resource: "webhookreplays", namespace: "clinic-a"},
		"manager replays":                        {who: manager, verb: "update", resource: "webhookdeliveries", namespace: "clinic-a"},
		"puller pulls":                           {who: "puller", verb: "update", resource: "webhooksubscriptions/pull", namespace: "clinic-a", want: true},
		"puller pulls elsewhere":                 {who: "puller", verb: "update", resource: "webhooksubscriptions/pull", namespace: "clinic-b"},
		"puller writes subscriptions":            {who: "puller", verb: "update", resource: "webhooksubscriptions", namespace: "clinic-a"},
		"admin pulls":                            {who: "admin", verb: "update", resource: "webhooksubscriptions/pull", namespace: "clinic-a"},
		"editor pulls":                           {who: "editor", verb: "update", resource: "webhooksubscriptions/pull", namespace: "clinic-a"},
		"viewer pulls":                           {who: "viewer", verb: "update", resource: "webhooksubscriptions/pull", namespace: "clinic-a"},
		"editor publishes":                       {who: "editor", verb: "create", resource: "webhookevents", namespace: "clinic-a"},
		"editor writes elsewhere":                {who: "editor", verb: "create", resource: "webhooksubscriptions", namespace: "clinic-b"},
		"admin deletes all subscriptions":        {who: "admin", verb: "deletecollection", resource: "webhooksubscriptions", namespace: "clinic-a", want: true},
		"admin makes dispatchers":                {who: "admin", verb: "create", resource: "webhookdispatchers", namespace: "clinic-a"},
		"platform team makes dispatchers":        {who: "dispatcher-admin", verb: "create", resource: "webhookdispatchers", namespace: "clinic-a", want: true},
		"platform team scales dispatchers":       {who: "dispatcher-admin", verb: "patch", resource: "webhookdispatchers/scale", namespace: "clinic-a", want: true},
		"autoscaler scales dispatchers":          {who: autoscale, verb: "update", resource: "webhookdispatchers/scale", namespace: "clinic-a", want: true},
		"autoscaler writes dispatchers":          {who: autoscale, verb: "update", resource: "webhookdispatchers", namespace: "clinic-a"},
		"manager writes status":                  {who: manager, verb: "patch", resource: "webhooksubscriptions/status", namespace: "clinic-a", want: true},
		"manager writes specs":                   {who: manager, verb: "patch", resource: "webhooksubscriptions", namespace: "clinic-a"},
		"manager holds its lease":                {who: manager, verb: "update", group: "coordination.k8s.io", resource: "leases", name: "eventflow-manager", namespace: "eventflow-system", want: true},
		"manager makes the default dispatcher":   {who: manager, verb: "create", resource: "webhookdispatchers", name: "default", namespace: "eventflow-system", want: true},
		"manager makes other dispatchers":        {who: manager, verb: "create", resource: "webhookdispatchers", name: "other", namespace: "eventflow-system"},
		"manager makes dispatchers elsewhere":    {who: manager, verb: "create", resource: "webhookdispatchers", name: "default", namespace: "clinic-a"},
		"manager writes tenants' Secrets":        {who: manager, verb: "patch", group: core, resource: "secrets", namespace: "clinic-a"},
		"manager writes its own Secrets":         {who: manager, verb: "patch", group: core, resource: "secrets", namespace: "eventflow-system", want: true},
		"manager makes Deployments elsewhere":    {who: manager, verb: "create", group: "apps", resource: "deployments", namespace: "clinic-a"},
		"manager makes its Deployments":          {who: manager, verb: "create", group: "apps", resource: "deployments", namespace: "eventflow-system", want: true},
		"manager makes bindings":                 {who: manager, verb: "create", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings"},
		"manager deletes bindings":               {who: manager, verb: "delete", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", name: "eventflow-dispatcher-auth"},
		"manager sets subjects of its bindings":  {who: manager, verb: "patch", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", name: "eventflow-dispatcher-auth", want: true},
		"manager sets subjects of another":       {who: manager, verb: "patch", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", name: "cluster-admin"},
		"manager binds the roles of dispatchers": {who: manager, verb: "bind", group: "rbac.authorization.k8s.io", resource: "clusterroles", name: "eventflow-dispatcher-status", want: true},
		"manager binds any other role":           {who: manager, verb: "bind", group: "rbac.authorization.k8s.io", resource: "clusterroles", name: "cluster-admin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := &authorizationv1.ResourceAttributes{Group: webhooks, Verb: tt.verb, Resource: tt.resource, Name: tt.name, Namespace: tt.namespace}
			if tt.group != "" {
				asked.Group = strings.TrimPrefix(tt.group, core)
			}
			asked.Resource, asked.Subresource, _ = strings.Cut(tt.resource, "/")
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: tt.who, ResourceAttributes: asked}}
			if err := apiServer.Create(t.Context(), review); err != nil {
				t.Fatal(err)
			}
			if got := review.Status.Allowed; got != tt.want {
				t.Errorf("want %t, got %t: %s", tt.want, got, review.Status.Reason)
			}
		})
	}
}

func kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := runKubectl(t, "", arguments...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return output
}

// runKubectl runs it with the given standard input, and returns all that it said.
func runKubectl(t *testing.T, input string, arguments ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), environment.ControlPlane.KubectlPath, append([]string{"--kubeconfig", kubeconfig}, arguments...)...)
	c.Env = append(os.Environ(), "HOME="+filepath.Dir(kubeconfig))
	c.Stdin = strings.NewReader(input)
	output, err := c.CombinedOutput()
	return string(output), err
}
