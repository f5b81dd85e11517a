package controllers_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/test/rights"
)

// The API server that every test of this package talks to, and the manager that works on it with no more rights than
// config/rbac gives it.
var (
	restConfig    *rest.Config
	managerConfig *rest.Config
	api           client.Client
	manager       = &process{}
)

const testImage = "registry.example.com/eventflow:test"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := waitTogether(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

// waitTogether lets more tests run at the same time than there are processors, unless a flag says how many: nearly all that they do
// is to wait for the API server and the manager.
func waitTogether() error {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return nil
	}
	return flag.Set("test.parallel", "6")
}

func run(m *testing.M) int {
	code := runWithServer(m)
	// A watch that is stopped while an event is on its way leaves this one behind.
	upstream := []goleak.Option{
		goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"),
		// These wait, without a context, for a first list that a manager which stops does not get any more.
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformer.func1"),
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformerHandlerRegistration.func1"),
	}
	// A manager that was stopped before its caches were filled ends a while after Run.
	err := goleak.Find(upstream...)
	for began := time.Now(); err != nil && time.Since(began) < patience; {
		err = goleak.Find(upstream...)
	}
	if err != nil && code == 0 {
		fmt.Fprintf(os.Stderr, "the manager left something running: %v\n", err)
		return 1
	}
	return code
}

func runWithServer(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	dir, err := os.MkdirTemp("", "eventflow-controllers-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "make a folder: %v\n", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log, err := rights.Record(environment, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// To the endpoints of a Service, as there is nothing here that leads there from its address.
	environment.ControlPlane.GetAPIServer().Configure().Set("enable-aggregator-routing", "true")
	restConfig, err = environment.Start()
	if err != nil {
		fmt.Fprintf(os.Stderr, "start the API server (KUBEBUILDER_ASSETS must name a folder with etcd and kube-apiserver): %v\n", err)
		return 1
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			fmt.Fprintf(os.Stderr, "stop the API server: %v\n", err)
		}
	}()
	restConfig.QPS, restConfig.Burst = 500, 1000
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	api, err = client.New(restConfig, client.Options{Scheme: scheme})
	if err != nil {
		fmt.Fprintf(os.Stderr, "make a client: %v\n", err)
		return 1
	}
	if err := authorize(); err != nil {
		fmt.Fprintf(os.Stderr, "let the manager in: %v\n", err)
		return 1
	}
	manager.start(controllers.Options{})
	code := m.Run()
	if err := manager.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "the manager failed: %v\n", err)
		return 1
	}
	if code != 0 || selected() {
		return code
	}
	unused, err := unusedRights(log)
	if err != nil || len(unused) > 0 {
		fmt.Fprintf(os.Stderr, "rules of the manager's roles that no test uses (%v):\n%s\n", err, strings.Join(unused, "\n"))
		return 1
	}
	return code
}

// selected reports whether only some tests were run.
func selected() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return false
}

// managerUser is the manager's ServiceAccount.
const managerUser = "eventflow-manager"

// authorize installs the roles and their bindings as they are shipped, and has the manager run as its ServiceAccount.
func authorize() error {
	ctx := context.Background()
	if err := api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controllers.DefaultNamespace}}); err != nil {
		return err
	}
	for _, file := range []string{"rbac/service_account.yaml", "rbac/role.yaml", "rbac/role_binding.yaml", "components/deliveries-api/bindings.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "config", filepath.FromSlash(file)))
		if err != nil {
			return err
		}
		for _, document := range strings.Split(string(text), "\n---\n") {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(document), object); err != nil {
				return err
			}
			if err := api.Create(ctx, object); err != nil {
				return err
			}
		}
	}
	token := &authenticationv1.TokenRequest{}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: controllers.DefaultNamespace, Name: managerUser}}
	if err := api.SubResource("token").Create(ctx, account, token); err != nil {
		return err
	}
	managerConfig = rest.AnonymousClientConfig(restConfig)
	managerConfig.BearerToken = token.Status.Token
	managerConfig.Wrap(asked.wrap)
	return nil
}

// bind gives the manager a Role or ClusterRole in a namespace.
func bind(ctx context.Context, kind, role, namespace string) error {
	return api.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role, Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: managerUser, Namespace: controllers.DefaultNamespace}},
	})
}

// held are rights that no request of the manager has for itself, with the one whose use needs them: it binds the two
// ClusterRoles, and may hand on to a dispatcher only what it has.
var held = map[rights.Right]rights.Right{
	{Verb: "bind", Group: rbacv1.GroupName, Resource: "clusterroles"}:                        {Verb: "patch", Group: rbacv1.GroupName, Resource: "clusterrolebindings"},
	{Verb: "get", Group: v1alpha1.GroupVersion.Group, Resource: "webhookdispatchers/status"}: {Verb: "create", Group: rbacv1.GroupName, Resource: "roles"},
}

// heldAlone are those of a manager with Roles alone.
var heldAlone = map[rights.Right]rights.Right{
	{Verb: "bind", Group: rbacv1.GroupName, Resource: "clusterroles"}:                        {Verb: "patch", Group: rbacv1.GroupName, Resource: "rolebindings"},
	{Verb: "get", Group: v1alpha1.GroupVersion.Group, Resource: "webhookdispatchers/status"}: {Verb: "create", Group: rbacv1.GroupName, Resource: "roles"},
}

// unusedRights returns the rules of the manager's roles that no test needed.
func unusedRights(log rights.Log) ([]string, error) {
	roles, err := rights.Rules(filepath.Join("..", "config", "rbac", "role.yaml"))
	if err != nil {
		return nil, err
	}
	used, err := log.Used(rights.ServiceAccount(controllers.DefaultNamespace, managerUser))
	if err != nil {
		return nil, err
	}
	given := slices.Concat(roles[managerUser], roles[namespaceRole], roles[deliveriesNamespaceRole], roles["eventflow-deliveries-api"])
	unused := rights.Unused(given, used, held)
	if used, err = log.Used(aloneUser); err != nil {
		return nil, err
	}
	for _, right := range rights.Unused(roles[tenantRole], used, heldAlone) {
		unused = append(unused, tenantRole+": "+right)
	}
	return unused, nil
}

// process is a manager that runs beside the tests. Tests that stop it are not parallel, so that no other one runs.
type process struct {
	cancel context.CancelFunc
	done   chan error
}

func (p *process) start(o controllers.Options) { p.startAs(managerConfig, o) }

// startAs starts a manager that acts as someone else.
func (p *process) startAs(config *rest.Config, o controllers.Options) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	o.MetricsAddress, o.ProbeAddress = "0", "0"
	if o.Pod == "" {
		o.DispatcherImage = testImage
	}
	go func() { p.done <- controllers.Run(ctx, config, o) }()
}

// startSupervised starts a manager that is started again when it fails, as Kubernetes does: one that loses the API server
// while it starts ends.
func (p *process) startSupervised(config *rest.Config, o controllers.Options) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	o.MetricsAddress, o.ProbeAddress, o.DispatcherImage = "0", "0", testImage
	go func() {
		for {
			err := controllers.Run(ctx, config, o)
			if err == nil || ctx.Err() != nil {
				p.done <- nil
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

func (p *process) stop() error {
	p.cancel()
	select {
	case err := <-p.done:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("it did not stop within 30 s")
	}
}
