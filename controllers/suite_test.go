package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
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

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := runWithServer(m)
	// A watch that is stopped while an event is on its way leaves this one behind.
	upstream := goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop")
	if err := goleak.Find(upstream); err != nil && code == 0 {
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
	var err error
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
	if err := authorize(environment); err != nil {
		fmt.Fprintf(os.Stderr, "let the manager in: %v\n", err)
		return 1
	}
	manager.start(controllers.Options{})
	code := m.Run()
	if err := manager.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "the manager failed: %v\n", err)
		return 1
	}
	return code
}

// managerUser is who the manager is to the API server.
const managerUser = "eventflow-manager"

// authorize installs the roles as they are shipped, and gives the manager's to managerUser.
func authorize(environment *envtest.Environment) error {
	ctx := context.Background()
	text, err := os.ReadFile(filepath.Join("..", "config", "rbac", "role.yaml"))
	if err != nil {
		return err
	}
	if err := api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controllers.DefaultNamespace}}); err != nil {
		return err
	}
	for _, document := range strings.Split(string(text), "\n---\n") {
		role := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), role); err != nil {
			return err
		}
		if err := api.Create(ctx, role); err != nil {
			return err
		}
		if role.GetName() != managerUser {
			continue
		}
		if err := bind(ctx, role.GetKind(), role.GetNamespace()); err != nil {
			return err
		}
	}
	user, err := environment.AddUser(envtest.User{Name: managerUser}, restConfig)
	if err != nil {
		return err
	}
	managerConfig = user.Config()
	managerConfig.Wrap(asked.wrap)
	return nil
}

// bind gives managerUser the shipped Role, in its namespace, or ClusterRole.
func bind(ctx context.Context, kind, namespace string) error {
	meta := metav1.ObjectMeta{Name: managerUser, Namespace: namespace}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: managerUser}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: managerUser}}
	if kind == "ClusterRole" {
		return api.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
	}
	return api.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
}

// process is a manager that runs beside the tests. Tests that stop it are not parallel, so that no other one runs.
type process struct {
	cancel context.CancelFunc
	done   chan error
}

func (p *process) start(o controllers.Options) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	o.MetricsAddress, o.ProbeAddress, o.DispatcherImage = "0", "0", testImage
	go func() { p.done <- controllers.Run(ctx, managerConfig, o) }()
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
