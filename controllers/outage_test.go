package controllers_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	dataplane "github.com/clinikapi/eventflow/dispatcher"
)

// wire is the way of both planes to the API server. While it is cut, the API server is unavailable to them.
type wire struct {
	listener net.Listener
	server   string

	mu    sync.Mutex
	isCut bool
	open  map[net.Conn]struct{}
	all   sync.WaitGroup
}

func newWire(t *testing.T) *wire {
	t.Helper()
	host, err := url.Parse(restConfig.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{server: host.Host, open: make(map[net.Conn]struct{})}
	if w.server == "" { // it has no scheme
		w.server = restConfig.Host
	}
	if w.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = w.listener.Close()
		w.cut(true)
		w.all.Wait()
	})
	return w
}

// config is that of a client whose requests go this way.
func (w *wire) config(of *rest.Config) *rest.Config {
	config := rest.CopyConfig(of)
	config.Host = "https://" + w.listener.Addr().String()
	return config
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", w.server, 5*time.Second)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
			w.all.Go(func() {
				_, _ = io.Copy(to, from)
				w.close(from, to)
			})
		}
	}
}

// keep reports whether the connections may be.
func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range conns {
		if !w.isCut {
			w.open[conn] = struct{}{}
		}
	}
	return !w.isCut
}

func (w *wire) close(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
		delete(w.open, conn)
	}
}

// cut ends all connections, and each new one, or mends the wire.
func (w *wire) cut(now bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = now
	for conn := range w.open {
		if now {
			_ = conn.Close()
		}
	}
}

// flip cuts the wire, or mends it.
func (w *wire) flip() {
	w.mu.Lock()
	now := !w.isCut
	w.mu.Unlock()
	w.cut(now)
}

// pod is a dispatcher that runs here, with no more rights than its ServiceAccount has.
type pod struct {
	options dataplane.Options
	cancel  func()
	done    chan error
}

// newPod returns the pod of the dispatcher "main" of a namespace. Its store outlives its restarts.
func newPod(t *testing.T, w *wire, namespace string) *pod {
	t.Helper()
	dir := t.TempDir()
	config := w.config(asPod(namespace))
	file := filepath.Join(dir, "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Impersonate: config.Impersonate.UserName,
		}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{options: dataplane.Options{
		Routes: "kubernetes", Settings: "kubernetes", Store: "pebble:" + filepath.Join(dir, "store"), Listen: "127.0.0.1:0", OpsListen: "127.0.0.1:0",
		IngestAuth: "none", Name: "main", Namespace: namespace, Kubeconfig: file, MaxEventBytes: 1 << 20,
		RetentionDelivered: time.Hour, RetentionFailed: time.Hour, Version: "test", ProgrammedByRevision: true, Logger: logr.Discard(),
	}}
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *pod) runs() bool { return p.cancel != nil }

func (p *pod) start(t *testing.T) {
	t.Helper()
	if p.runs() {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p.cancel, p.done = cancel, make(chan error, 1)
	go func() { p.done <- dataplane.Run(ctx, p.options) }()
}

func (p *pod) stop(t *testing.T) {
	t.Helper()
	if !p.runs() {
		return
	}
	p.cancel()
	p.cancel = nil
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("the dispatcher failed: %v", err)
		}
	case <-time.After(40 * time.Second):
		t.Error("the dispatcher did not stop within 40 s")
	}
}
