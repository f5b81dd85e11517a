package controllers_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	deliveries "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	certs "github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/controllers/deliveriesapi"
	"github.com/clinikapi/eventflow/dispatcher/apiserver"
)

const (
	deliveriesName          = "eventflow-deliveries-main"
	deliveriesNamespaceRole = "eventflow-deliveries-namespace"
	deliveriesRole          = "eventflow-dispatcher-deliveries"
)

// deliveriesOptions are those of a manager that may register the API. It is as quick as a test wants it.
func deliveriesOptions() controllers.Options {
	return controllers.Options{
		DeliveriesAPI: true, DialDeliveries: served.dial,
		DeliveriesTiming: deliveriesapi.Timing{Poll: 100 * time.Millisecond, Patience: 2 * time.Second, Pause: 300 * time.Millisecond, Proven: time.Hour},
	}
}

// restart runs another manager in place of the one that runs, until the test ends if it is the first.
func restart(t *testing.T, o controllers.Options) {
	t.Helper()
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	manager.start(o)
}

// withDeliveries has a manager that may register the API run during a test. What the test leaves is removed.
func withDeliveries(t *testing.T) {
	t.Helper()
	restart(t, deliveriesOptions())
	t.Cleanup(func() {
		list := &v1alpha1.WebhookDispatcherList{}
		if err := api.List(context.Background(), list); err != nil {
			t.Error(err)
		}
		for i := range list.Items {
			if ptr.Deref(list.Items[i].Spec.DeliveriesAPI.Enabled, false) {
				_ = api.Delete(context.Background(), &list.Items[i])
			}
		}
		if err := manager.stop(); err != nil {
			t.Error(err)
		}
		_ = api.Delete(context.Background(), apiService()) // or no other test could delete a thing
		manager.start(controllers.Options{})
	})
}

// addresses lead to what serves the API of each dispatcher, by the name of its Service.
type addresses struct{ byHost sync.Map }

var served addresses

func (a *addresses) dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, found := a.byHost.Load(address)
	if !found {
		return nil, fmt.Errorf("nothing serves %s", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, to.(string))
}

// dataPlane stands for a dispatcher's pod: it answers discovery as a dispatcher does, with the certificate of the Secret.
type dataPlane struct {
	namespace string
	address   netip.AddrPort
	target    *corev1.ObjectReference
	pair      atomic.Pointer[tls.Certificate]
	server    *http.Server
	ended     chan error
}

// hostAddress is an address of this machine that an endpoint may have: none of the loopback's.
func hostAddress(t *testing.T) netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr()
		}
	}
	t.Skip("this machine has the address of the loopback interface alone, which no endpoint may have")
	return netip.Addr{}
}

// startDataPlane makes a pod of the dispatcher "main" known, which does not listen yet.
func startDataPlane(t *testing.T, namespace string) *dataPlane {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(hostAddress(t), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	p := &dataPlane{namespace: namespace, address: l.Addr().(*net.TCPAddr).AddrPort()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	served.byHost.Store(deliveriesName+"."+namespace+".svc:443", p.address.String())
	p.publish(t)
	t.Cleanup(func() { p.kill(t) })
	return p
}

// publish does what Kubernetes does with a pod that has an address.
func (p *dataPlane) publish(t *testing.T) {
	t.Helper()
	ip, port := p.address.Addr().String(), int32(p.address.Port())
	pod := create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "main-0"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dispatcher", Image: testImage}}},
	})
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
	if err := api.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	p.target = &corev1.ObjectReference{Kind: "Pod", Namespace: p.namespace, Name: pod.Name, UID: pod.UID}
	create(t, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: p.namespace, Name: deliveriesName, Labels: map[string]string{discoveryv1.LabelServiceName: deliveriesName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip}, TargetRef: p.target}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("deliveries"), Port: ptr.To(port), Protocol: ptr.To(corev1.ProtocolTCP)}},
	})
	p.publishEndpoints(t)
}

// publishEndpoints does the same for those that the API server deletes with a Service.
func (p *dataPlane) publishEndpoints(t *testing.T) {
	t.Helper()
	ip, port := p.address.Addr().String(), int32(p.address.Port())
	create(t, &corev1.Endpoints{ //nolint:staticcheck // the API server's way to a Service reads these
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: deliveriesName},
		Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // see above
			Addresses: []corev1.EndpointAddress{{IP: ip, TargetRef: p.target}}, Ports: []corev1.EndpointPort{{Name: "deliveries", Port: port, Protocol: corev1.ProtocolTCP}},
		}},
	})
}

// listen answers, with a certificate.
func (p *dataPlane) listen(t *testing.T, set certs.Set) {
	t.Helper()
	p.serve(t, set)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", p.address.String())
	if err != nil {
		t.Fatal(err)
	}
	p.server = &http.Server{
		Handler: apiserver.NewDiscovery(false), ReadHeaderTimeout: patience,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.pair.Load(), nil }},
	}
	p.ended = make(chan error, 1)
	server, ended := p.server, p.ended
	go func() { ended <- server.ServeTLS(l, "", "") }()
}

// serve takes another certificate over.
func (p *dataPlane) serve(t *testing.T, set certs.Set) {
	t.Helper()
	pair, err := tls.X509KeyPair(set.Serving.Certificate, set.Serving.Key)
	if err != nil {
		t.Fatal(err)
	}
	p.pair.Store(&pair)
}

// kill ends it. Its endpoints stay, as those of a pod do whose process died.
func (p *dataPlane) kill(t *testing.T) {
	t.Helper()
	if p.server == nil {
		return
	}
	if err := p.server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-p.ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	p.server = nil
}

// certificateOf waits until a dispatcher's Secret holds a certificate that passes check.
func certificateOf(t *testing.T, namespace string, check func(certs.Set) error) (set certs.Set) {
	t.Helper()
	appears(t, in(namespace, deliveriesName, &corev1.Secret{}), func(s *corev1.Secret) error {
		if set = certs.FromData(s.Data); len(set.Serving.Certificate) == 0 {
			return errors.New("it holds no certificate")
		}
		return check(set)
	})
	return set
}

func anyCertificate(certs.Set) error { return nil }

func apiService() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
	object.SetName(deliveriesapi.Name)
	return object
}

// registered waits until the API is registered and discovery is whole with it, and returns the APIService.
func registered(t *testing.T, d *v1alpha1.WebhookDispatcher) *unstructured.Unstructured {
	t.Helper()
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionTrue, v1alpha1.ReasonServed)
	found := appears(t, apiService(), func(s *unstructured.Unstructured) error {
		namespace, _, _ := unstructured.NestedString(s.Object, "spec", "service", "namespace")
		if namespace != d.Namespace {
			return fmt.Errorf("it leads to namespace %q", namespace)
		}
		return nil
	})
	discovered(t, true)
	return found
}

// unregistered waits until there is no such API, and discovery is whole without.
func unregistered(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKey{Name: deliveriesapi.Name}, apiService()); !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("the APIService is there"), err)
		}
		return nil
	})
	discovered(t, false)
}

// discovered waits, for at most a minute, until what deleting a namespace needs works: discovery of all groups. The deliveries API
// is one of them, or is not.
func discovered(t *testing.T, want bool) {
	t.Helper()
	began := time.Now()
	eventually(t, func(context.Context) error {
		c, err := discovery.NewDiscoveryClientForConfig(restConfig)
		if err != nil {
			return err
		}
		lists, err := c.ServerPreferredResources()
		if err != nil {
			return fmt.Errorf("discovery fails: %w", err)
		}
		found := false
		for _, list := range lists {
			found = found || list.GroupVersion == deliveries.GroupVersion.String()
		}
		if found != want {
			return fmt.Errorf("the API is discovered: %t", found)
		}
		return nil
	})
	if took := time.Since(began); took > time.Minute {
		t.Errorf("discovery was whole after %v only", took)
	}
}

// asks makes a dispatcher ask for the API.
func asks(d *v1alpha1.WebhookDispatcher) { d.Spec.DeliveriesAPI.Enabled = ptr.To(true) }

// deliveriesNamespace makes a namespace in which the manager may make dispatchers, and ask their pods.
func deliveriesNamespace(t *testing.T) string {
	t.Helper()
	ns := namespace(t)
	if err := bind(t.Context(), "ClusterRole", deliveriesNamespaceRole, ns); err != nil {
		t.Fatal(err)
	}
	return ns
}

// argument is what the argument of a flag says, "" if there is none.
func argument(args []string, flag string) string {
	for _, arg := range args {
		if value, found := strings.CutPrefix(arg, "--"+flag+"="); found {
			return value
		}
	}
	return ""
}

// conditionGone waits until a dispatcher says nothing of the API any more.
func conditionGone(t *testing.T, d *v1alpha1.WebhookDispatcher) {
	t.Helper()
	appears(t, d, func(d *v1alpha1.WebhookDispatcher) error {
		if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionDeliveriesAPIReady); c != nil {
			return fmt.Errorf("it still says %s to generation %s", c.Reason, strconv.FormatInt(c.ObservedGeneration, 10))
		}
		return nil
	})
}

func encoded(bundle []byte) string { return base64.StdEncoding.EncodeToString(bundle) }
