package deliveries

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// patience bounds everything that is waited for.
const patience = time.Minute

// cluster is an API server that passes the deliveries API on to a dispatcher.
type cluster struct {
	*testing.T
	ctx        context.Context
	dir        string
	binary     string
	admin      string // kubeconfig
	proxyCA    *authority
	servingCA  string    // a file
	serving    [2]string // the deliveries API's certificate and key
	address    string    // of the deliveries API
	endpoint   *httptest.Server
	answer     atomic.Int32 // the endpoint's status
	dispatcher *process
}

// routes are a subscription of each clinic. Each delivery gets one attempt.
const routes = `
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: %[1]s}
stringData: {current: a signing key of plain text}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: labs, namespace: %[1]s}
spec:
  url: %[2]s
  events: ["*"]
  signing: {secretRef: {name: key, key: current}}
  retry: {maxAttempts: 1}
`

// objects are the cluster's: namespaces, who may what, and the API. ExternalName leads kube-apiserver to a process beside it.
const objects = `
{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clinic-a"}},
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clinic-b"}},
{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dispatcher", "namespace": "default"}},
{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer", "namespace": "clinic-a"}},
{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "producer", "namespace": "clinic-a"}},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "dispatcher"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
 "subjects": [{"kind": "ServiceAccount", "name": "dispatcher", "namespace": "default"}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dispatcher", "namespace": "kube-system"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"},
 "subjects": [{"kind": "ServiceAccount", "name": "dispatcher", "namespace": "default"}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "viewer", "namespace": "clinic-a"}, "rules": [
 {"apiGroups": ["deliveries.webhooks.clinikapi.com"], "resources": ["webhookdeliveries", "webhookevents"], "verbs": ["get", "list", "watch"]}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "viewer", "namespace": "clinic-a"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
 "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": "clinic-a"}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "producer"}, "rules": [
 {"apiGroups": ["webhooks.clinikapi.com"], "resources": ["webhookevents"], "verbs": ["create"]}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "producer"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "producer"},
 "subjects": [{"kind": "ServiceAccount", "name": "producer", "namespace": "clinic-a"}]},
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "deliveries", "namespace": "default"},
 "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": %[1]s}]}},
{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1alpha1.deliveries.webhooks.clinikapi.com"},
 "spec": {"group": "deliveries.webhooks.clinikapi.com", "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 10,
  "service": {"name": "deliveries", "namespace": "default", "port": %[1]s}, "caBundle": %[2]q}}
]}`

// newCluster starts all of it.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set")
	}
	c := &cluster{T: t, ctx: t.Context(), dir: t.TempDir()}
	ctrllog.SetLogger(logr.Discard())
	c.binary = filepath.Join(c.dir, "eventflow")
	if out, err := exec.CommandContext(c.ctx, "go", "build", "-o", c.binary, "../..").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	c.startAPIServer()
	c.endpoint = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(c.answer.Load())) }))
	t.Cleanup(c.endpoint.Close)
	c.answer.Store(http.StatusOK)
	c.writeRoutes()
	c.address = freeAddress(t)
	ca, err := newAuthority(c.dir, "serving-ca")
	if err == nil {
		c.serving[0], c.serving[1], err = ca.issue("serving", x509.ExtKeyUsageServerAuth, "deliveries.default.svc")
	}
	if err != nil {
		t.Fatal(err)
	}
	c.servingCA = ca.file
	bundle, err := os.ReadFile(ca.file)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(c.address)
	if err != nil {
		t.Fatal(err)
	}
	c.kubeIn(fmt.Sprintf(objects, port, base64.StdEncoding.EncodeToString(bundle)), "apply", "-f", "-")
	c.dispatcher = c.startDispatcher("store", c.address)
	c.available()
	return c
}

// startAPIServer starts an API server that is a front proxy.
func (c *cluster) startAPIServer() {
	c.Helper()
	var err error
	if c.proxyCA, err = newAuthority(c.dir, "front-proxy-ca"); err != nil {
		c.Fatal(err)
	}
	cert, key, err := c.proxyCA.issue("front-proxy-client", x509.ExtKeyUsageClientAuth)
	if err != nil {
		c.Fatal(err)
	}
	environment := &envtest.Environment{}
	environment.ControlPlane.GetAPIServer().Configure().
		Set("requestheader-client-ca-file", c.proxyCA.file).Set("requestheader-allowed-names", "front-proxy-client").
		Set("requestheader-username-headers", "X-Remote-User").Set("requestheader-group-headers", "X-Remote-Group").
		Set("requestheader-extra-headers-prefix", "X-Remote-Extra-").
		Set("proxy-client-cert-file", cert).Set("proxy-client-key-file", key)
	if _, err := environment.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = environment.Stop() })
	c.admin = filepath.Join(c.dir, "admin.kubeconfig")
	if err := os.WriteFile(c.admin, environment.KubeConfig, 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) writeRoutes() {
	c.Helper()
	if err := os.Mkdir(filepath.Join(c.dir, "routes"), 0o700); err != nil {
		c.Fatal(err)
	}
	for _, namespace := range []string{"clinic-a", "clinic-b"} {
		text := fmt.Sprintf(routes, namespace, c.endpoint.URL)
		if err := os.WriteFile(filepath.Join(c.dir, "routes", namespace+".yaml"), []byte(text), 0o600); err != nil {
			c.Fatal(err)
		}
	}
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// kubeIn runs kubectl as the cluster's admin, with an input.
func (c *cluster) kubeIn(input string, args ...string) string {
	c.Helper()
	out, err := c.kubectl(c.admin, input, args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *cluster) kube(args ...string) string {
	c.Helper()
	return c.kubeIn("", args...)
}

// kubectl runs kubectl with a kubeconfig. An answer that does not come within patience is an error.
func (c *cluster) kubectl(config, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	command := c.command(ctx, config, args...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (c *cluster) command(ctx context.Context, config string, args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig=" + config, "--cache-dir=" + filepath.Join(c.dir, "cache")}, args...)
	return exec.CommandContext(ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...)
}

// account writes a kubeconfig of a ServiceAccount, and returns its token, too.
func (c *cluster) account(namespace, name string) (file, token string) {
	c.Helper()
	token = strings.TrimSpace(c.kube("-n", namespace, "create", "token", name, "--duration=1h"))
	config, err := clientcmd.LoadFromFile(c.admin)
	if err != nil {
		c.Fatal(err)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{config.Contexts[config.CurrentContext].AuthInfo: {Token: token}}
	file = filepath.Join(c.dir, name+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		c.Fatal(err)
	}
	return file, token
}

// available waits until kube-apiserver says that the API can be had.
func (c *cluster) available() {
	c.Helper()
	c.kube("wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1alpha1.deliveries.webhooks.clinikapi.com")
}

// process is a dispatcher.
type process struct {
	*exec.Cmd
	api   string
	ready chan string   // gets the address of the API
	ended chan error    // gets what became of it
	done  chan struct{} // closed once it is gone and log is complete
	log   bytes.Buffer
}

// startDispatcher starts a dispatcher on a store of the cluster's folder, and waits until it is ready.
func (c *cluster) startDispatcher(store, deliveries string) *process {
	c.Helper()
	p := c.launchDispatcher(store, deliveries)
	select {
	case p.api = <-p.ready:
	case <-p.done:
		c.Fatalf("the dispatcher ended:\n%s", &p.log)
	case <-time.After(patience):
		c.Fatal("the dispatcher did not become ready")
	}
	return p
}

// launchDispatcher starts a dispatcher.
func (c *cluster) launchDispatcher(store, deliveries string) *process {
	c.Helper()
	config, _ := c.account("default", "dispatcher")
	p := &process{ready: make(chan string, 1), ended: make(chan error, 1), done: make(chan struct{}), Cmd: exec.Command(c.binary, "dispatcher", "--routes="+filepath.Join(c.dir, "routes"), "--store=pebble:"+filepath.Join(c.dir, store),
		"--kubeconfig="+config, "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--drain-delay=0s", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8",
		"--deliveries-listen="+deliveries, "--deliveries-tls-cert-file="+c.serving[0], "--deliveries-tls-key-file="+c.serving[1])}
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.StderrPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := p.Start(); err != nil {
		c.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.log.WriteString(lines.Text() + "\n")
			var entry struct{ API string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.API != "" {
				p.ready <- entry.API
			}
		}
		p.ended <- p.Wait()
	}()
	c.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		if c.Failed() {
			c.Logf("dispatcher on %s:\n%s", store, &p.log)
		}
	})
	return p
}

// end sends a signal, waits until the process is gone, and returns what became of it.
func (c *cluster) end(p *process, signal syscall.Signal) error {
	c.Helper()
	if err := p.Process.Signal(signal); err != nil {
		c.Fatal(err)
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		c.Fatalf("the dispatcher did not end after %v", signal)
		return nil
	}
}

// publish publishes an event into a namespace.
func (c *cluster) publish(p *process, token, namespace, id string) {
	c.Helper()
	body := `{"id":"` + id + `","type":"lab.created","data":{"note":"` + secret + `"}}`
	r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://"+p.api+"/v1/namespaces/"+namespace+"/events", strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r) //nolint:forbidigo // a test's
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusAccepted {
		c.Fatalf("publishing %s: %s", id, response.Status)
	}
}

// eventually waits until check finds nothing to say.
func (c *cluster) eventually(check func() error) {
	c.Helper()
	end, tick := time.After(patience), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			c.Fatal(err)
		}
	}
}
