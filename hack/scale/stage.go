package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	systemNamespace   = "eventflow-system"
	managerAccount    = "eventflow-manager"
	dispatcherName    = "default"
	dispatcherAccount = "eventflow-dispatcher-" + dispatcherName
	// controlPlaneTimeout is how long etcd and kube-apiserver may each take to start.
	controlPlaneTimeout = 2 * time.Minute
)

// stage is all that a run starts and measures.
type stage struct {
	options
	started  time.Time
	root     string // of the checkout
	dir      string // of everything temporary
	kubectl  string
	cleanups []func() error

	environment                  *envtest.Environment
	api                          client.WithWatch
	audit                        auditLog
	apiserver, etcd              *process
	manager, dispatcher          *process // nil while they do not run
	managerConfig                string   // kubeconfigs
	dispatcherConfig, publishURL string
	heardFrom                    int64 // where in its log the present dispatcher begins
	dispatcherArguments          []string
	world                        *world
	receiver                     *receiver
	result                       result
	bareCost                     float64 // milliseconds of the API server's CPU for one create
}

// prepare builds and starts all but manager and dispatcher.
func (s *stage) prepare(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"find the checkout", s.findCheckout},
		{"build eventflow", s.build},
		{"start etcd and kube-apiserver", s.startControlPlane},
		{"install definitions and roles", s.install},
		{"watch the subscriptions", s.watch},
	} {
		s.say("%s", step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// say shows progress on standard error: standard output is the result's.
func (s *stage) say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%4.0fs  "+format+"\n", append([]any{time.Since(s.started).Seconds()}, arguments...)...)
}

func (s *stage) findCheckout(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return err
	}
	s.root = filepath.Dir(strings.TrimSpace(string(out)))
	if s.dir = s.keep; s.dir != "" {
		if s.dir, err = filepath.Abs(s.dir); err != nil {
			return err
		}
		return os.MkdirAll(s.dir, 0o750)
	}
	s.dir, err = os.MkdirTemp("", "eventflow-scale-")
	s.cleanup(func() error { return os.RemoveAll(s.dir) })
	return err
}

func (s *stage) build(ctx context.Context) error {
	if s.binary != "" {
		var err error
		s.binary, err = filepath.Abs(s.binary)
		return err
	}
	s.binary = filepath.Join(s.dir, "eventflow")
	_, err := s.command(ctx, nil, "go", "build", "-o", s.binary, ".")
	return err
}

func (s *stage) startControlPlane(ctx context.Context) error {
	assets, err := s.command(ctx, nil, filepath.Join(s.root, "hack", "controlplane", "assets"))
	if err != nil {
		return err
	}
	folder := strings.TrimSpace(string(assets))
	s.kubectl = filepath.Join(folder, "kubectl")
	s.audit.path = filepath.Join(s.dir, "audit.log")
	rules := filepath.Join(s.dir, "audit-policy.yaml")
	if err := os.WriteFile(rules, []byte(policy), 0o600); err != nil {
		return err
	}
	local := false
	s.environment = &envtest.Environment{
		BinaryAssetsDirectory: folder, UseExistingCluster: &local, ControlPlaneStartTimeout: controlPlaneTimeout,
	}
	s.environment.ControlPlane.GetAPIServer().Configure().
		Set("audit-policy-file", rules).Set("audit-log-path", s.audit.path).Set("audit-log-maxsize", "100000").
		Set("max-requests-inflight", "1000").Set("max-mutating-requests-inflight", "500")
	s.cleanup(func() error { return s.environment.Stop() })
	config, err := s.environment.Start()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.adminConfig(), s.environment.KubeConfig, 0o600); err != nil {
		return err
	}
	if s.apiserver, err = child("kube-apiserver"); err != nil {
		return err
	}
	if s.etcd, err = child("etcd"); err != nil {
		return err
	}
	config.QPS, config.Burst = -1, 0
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	s.api, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return err
}

func (s *stage) adminConfig() string { return filepath.Join(s.dir, "admin.kubeconfig") }

// install applies config/default but for the manager's Deployment, whose process runs here.
func (s *stage) install(ctx context.Context) error {
	manifests, err := s.command(ctx, nil, s.kubectl, "kustomize", filepath.Join("config", "default"))
	if err != nil {
		return err
	}
	var kept [][]byte
	for _, document := range bytes.Split(manifests, []byte("\n---\n")) {
		if !bytes.Contains(document, []byte("\nkind: Deployment\n")) {
			kept = append(kept, document)
		}
	}
	if _, err := s.command(ctx, bytes.NewReader(bytes.Join(kept, []byte("\n---\n"))), s.kubectl, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	if _, err := s.command(ctx, nil, s.kubectl, "wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions",
		"webhooksubscriptions.webhooks.clinikapi.com", "webhookdispatchers.webhooks.clinikapi.com", "webhookreplays.webhooks.clinikapi.com", "webhookdestinations.webhooks.clinikapi.com"); err != nil {
		return err
	}
	s.managerConfig, err = s.accountConfig(ctx, managerAccount)
	return err
}

// accountConfig writes a kubeconfig that acts as a ServiceAccount of the system's namespace.
func (s *stage) accountConfig(ctx context.Context, name string) (string, error) {
	seconds := int64((24 * time.Hour).Seconds())
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: name}}
	if err := s.api.SubResource("token").Create(ctx, account, token); err != nil {
		return "", fmt.Errorf("make a token of %s: %w", name, err)
	}
	config, err := clientcmd.LoadFromFile(s.adminConfig())
	if err != nil {
		return "", err
	}
	current, ok := config.Contexts[config.CurrentContext]
	if !ok {
		return "", fmt.Errorf("the kubeconfig has no context %q", config.CurrentContext)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{current.AuthInfo: {Token: token.Status.Token}}
	file := filepath.Join(s.dir, name+".kubeconfig")
	return file, clientcmd.WriteToFile(*config, file)
}

// cleanup registers what stop has to do; the last comes first.
func (s *stage) cleanup(do func() error) { s.cleanups = append(s.cleanups, do) }

func (s *stage) stop() error {
	var errs []error
	for _, p := range []*process{s.dispatcher, s.manager} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, s.cleanups[i]())
	}
	s.cleanups = nil
	return errors.Join(errs...)
}

func (s *stage) showLogs() {
	for _, p := range []*process{s.manager, s.dispatcher} {
		if p != nil {
			fmt.Fprintf(os.Stderr, "--- the end of the %s's log:\n%s\n", p.name, p.tail())
		}
	}
}

// command runs a program in the checkout as the administrator. Its error holds what it said.
func (s *stage) command(ctx context.Context, input *bytes.Reader, name string, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), "KUBECONFIG="+s.adminConfig())
	if input != nil {
		cmd.Stdin = input
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(arguments, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
