package test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/clinikapi/eventflow/test/rights"
)

// system is what every test of the package works with.
var system *environment

// environment is an API server with Event Flow on it, installed as config/default has it.
type environment struct {
	dir        string // of everything, removed at the end
	binary     string
	kubectl    string
	admin      string // kubeconfig
	config     *rest.Config
	link       *link // between the processes and the API server
	dispatcher *process
	api        string // of the dispatcher
}

const systemNamespace = "eventflow-system"

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "KUBEBUILDER_ASSETS is not set: run make test, or KUBEBUILDER_ASSETS=$(hack/controlplane/assets) go test ./test")
		return 1
	}
	dir, err := os.MkdirTemp("", "eventflow-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctrllog.SetLogger(logr.Discard())
	cluster := &envtest.Environment{}
	log, err := rights.Record(cluster, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = cluster.Stop() }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	e := &environment{dir: dir}
	defer e.stop()
	if err := e.start(ctx, cluster); err != nil {
		fmt.Fprintln(os.Stderr, "start the system under test:", err)
		e.dump()
		return 1
	}
	system = e
	code := m.Run()
	if code != 0 || selected() {
		return code
	}
	if unused, err := e.unusedRights(context.Background(), log); err != nil || len(unused) > 0 {
		fmt.Fprintf(os.Stderr, "rules of a dispatcher's roles that no test uses (%v):\n%s\n", err, strings.Join(unused, "\n"))
		return 1
	}
	return 0
}

// selected reports whether only some tests were run.
func selected() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return testing.Short()
}

// unusedRights returns the rules that the default dispatcher's ServiceAccount has and did not need.
func (e *environment) unusedRights(ctx context.Context, log rights.Log) ([]string, error) {
	const account = "eventflow-dispatcher-default"
	own, err := e.kube(ctx, "", "-n", systemNamespace, "get", "role", account, "-o", "yaml")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(e.dir, "role.yaml")
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		return nil, err
	}
	given, err := rights.Rules(file)
	if err != nil {
		return nil, err
	}
	shared, err := rights.Rules("../config/rbac/role.yaml")
	if err != nil {
		return nil, err
	}
	used, err := log.Used(rights.ServiceAccount(systemNamespace, account))
	if err != nil {
		return nil, err
	}
	all := slices.Concat(given[account], shared["eventflow-dispatcher-status"], shared["eventflow-dispatcher-auth"])
	// After a restart a dispatcher asks what stands of its subscriptions, which no test here waits for: of a few one by one,
	// of many by the page.
	subscriptions := func(verb, resource string) rights.Right {
		return rights.Right{Verb: verb, Group: "webhooks.clinikapi.com", Resource: resource}
	}
	patch := subscriptions("patch", "webhooksubscriptions/status")
	held := map[rights.Right]rights.Right{
		subscriptions("get", "webhooksubscriptions/status"): patch, subscriptions("list", "webhooksubscriptions"): patch,
	}
	return rights.Unused(all, used, held), nil
}

// start starts the API server, installs Event Flow, and starts a manager and the default dispatcher, each with no more
// rights than its ServiceAccount has.
func (e *environment) start(ctx context.Context, cluster *envtest.Environment) (err error) {
	e.binary, e.kubectl = filepath.Join(e.dir, "eventflow"), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", e.binary, "..").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	if e.config, err = cluster.Start(); err != nil {
		return err
	}
	e.admin = filepath.Join(e.dir, "admin.kubeconfig")
	if err := os.WriteFile(e.admin, cluster.KubeConfig, 0o600); err != nil {
		return err
	}
	host, err := url.Parse(e.config.Host)
	if err != nil {
		return err
	}
	if e.link, err = newLink(host.Host); err != nil {
		return err
	}
	if _, err := e.kube(ctx, "", "apply", "--server-side", "-k", "../config/default"); err != nil {
		return err
	}
	manager, err := e.accountConfig(ctx, systemNamespace, "eventflow-manager")
	if err != nil {
		return err
	}
	if _, err := e.run("manager", "manager", "--kubeconfig="+manager, "--metrics-bind-address=0", "--health-probe-bind-address=0", "--dispatcher-image=eventflow:test"); err != nil {
		return err
	}
	return e.startDispatcher(ctx)
}

// startDispatcher starts the process that the pod of the default dispatcher would be: the Deployment's own arguments,
// on a store and at addresses of its own.
func (e *environment) startDispatcher(ctx context.Context) error {
	if _, err := e.kube(ctx, "", "-n", systemNamespace, "wait", "--for=create", "--timeout=60s", "webhookdispatcher/default"); err != nil {
		return err
	}
	const egress = `{"spec":{"egress":{"allowHTTP":true,"allowedCIDRs":["127.0.0.0/8"]}}}`
	if _, err := e.kube(ctx, "", "-n", systemNamespace, "patch", "webhookdispatcher", "default", "--type=merge", "-p", egress); err != nil {
		return err
	}
	var args []string
	err := poll(ctx, func() error {
		text, err := e.kube(ctx, "", "-n", systemNamespace, "get", "deployment", "eventflow-dispatcher-default", "-o", "jsonpath={.spec.template.spec.containers[0].args}")
		if err != nil || !strings.Contains(text, "--settings=kubernetes") {
			return fmt.Errorf("the Deployment is not made yet: %w, %s", err, text)
		}
		return json.Unmarshal([]byte(text), &args)
	})
	if err != nil {
		return err
	}
	config, err := e.accountConfig(ctx, systemNamespace, "eventflow-dispatcher-default")
	if err != nil {
		return err
	}
	args = append(args, "--kubeconfig="+config, "--store=pebble:"+filepath.Join(e.dir, "store"), "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--drain-delay=0s",
		"--tls-cert-file=", "--tls-key-file=", "--plain-listen=", // nothing mounts a certificate here
		"--programmed-by-revision") // as the Deployment says in the environment
	e.dispatcher, err = e.run("dispatcher", args...)
	if err != nil {
		return err
	}
	e.api, err = e.dispatcher.address(ctx)
	return err
}

// accountConfig writes a kubeconfig with the rights of a ServiceAccount, whose way to the API server is the link.
func (e *environment) accountConfig(ctx context.Context, namespace, name string) (string, error) {
	var token string
	err := poll(ctx, func() (err error) {
		token, err = e.kube(ctx, "", "-n", namespace, "create", "token", name, "--duration=24h")
		return err
	})
	if err != nil {
		return "", err
	}
	config, err := clientcmd.LoadFromFile(e.admin)
	if err != nil {
		return "", err
	}
	current := config.Contexts[config.CurrentContext]
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{current.AuthInfo: {Token: strings.TrimSpace(token)}}
	config.Clusters[current.Cluster].Server = "https://" + e.link.address()
	file := filepath.Join(e.dir, name+".kubeconfig")
	return file, clientcmd.WriteToFile(*config, file)
}

// kube runs kubectl as the cluster's admin.
func (e *environment) kube(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, e.kubectl, append([]string{"--kubeconfig=" + e.admin}, args...)...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (e *environment) stop() {
	for _, p := range processes.all() {
		p.kill()
	}
	if e.link != nil {
		e.link.close()
	}
}

func (e *environment) dump() {
	for _, p := range processes.all() {
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", p.name, p.output())
	}
}

// poll calls check until it succeeds, or ctx ends.
func poll(ctx context.Context, check func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
