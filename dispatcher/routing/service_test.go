package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// leading is a subscription of a Service.
func leading(edits ...func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	sub := minimal()
	sub.Spec.URL, sub.Spec.ServiceRef = "", v1alpha1.ServiceReference{Name: "receiver", Port: 8443}
	for _, edit := range edits {
		edit(sub)
	}
	return sub
}

func clusterService(edits ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "receiver", Namespace: "clinic-a"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10", "fd00:96::10"},
		Selector: map[string]string{"app": "receiver"}, Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}, {Port: 8443, Protocol: corev1.ProtocolTCP}},
	}}
	for _, edit := range edits {
		edit(&s.Spec)
	}
	return s
}

func withService(s *corev1.Service) Sources {
	sources := secretsOf(clinicSecrets())
	sources.Services = func(name string) (*corev1.Service, error) {
		if s == nil || name != s.Name {
			return nil, nil
		}
		return s, nil
	}
	return sources
}

func TestCompileService(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ref     v1alpha1.ServiceReference
		service *corev1.Service
		want    string
	}{
		"https, of another port":    {v1alpha1.ServiceReference{Name: "receiver", Port: 8443}, clusterService(), "https://receiver.clinic-a.svc:8443/"},
		"a path and a query":        {v1alpha1.ServiceReference{Name: "receiver", Port: 8443, Path: "/in?of=a%20b"}, clusterService(), "https://receiver.clinic-a.svc:8443/in?of=a%20b"},
		"https, of its own port":    {v1alpha1.ServiceReference{Name: "receiver", Port: 443}, clusterService(func(s *corev1.ServiceSpec) { s.Ports[1].Port = 443 }), "https://receiver.clinic-a.svc/"},
		"http":                      {v1alpha1.ServiceReference{Name: "receiver", Port: 80, Scheme: v1alpha1.ServiceHTTP}, clusterService(func(s *corev1.ServiceSpec) { s.Ports[1].Port = 80 }), "http://receiver.clinic-a.svc/"},
		"a protocol of its default": {v1alpha1.ServiceReference{Name: "receiver", Port: 8443}, clusterService(func(s *corev1.ServiceSpec) { s.Ports[1].Protocol = "" }), "https://receiver.clinic-a.svc:8443/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := leading(func(s *v1alpha1.WebhookSubscription) { s.Spec.ServiceRef = test.ref })
			entry, rejection, err := Compile(sub, withService(test.service), Policy{Catalog: catalog(t), AllowHTTP: true})
			if err != nil || rejection != nil {
				t.Fatal(rejection, err)
			}
			want := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::10")}
			if entry.URL != test.want || !slices.Equal(entry.Service, want) || Origin(sub) != entry.Origin() {
				t.Errorf("URL %s, addresses %v, origin %s", entry.URL, entry.Service, Origin(sub))
			}
			shard, err := EncodeShard([]*Entry{entry})
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := DecodeShard(shard)
			if err != nil {
				t.Fatal(err)
			}
			route, err := decoded[0].Route()
			if err != nil {
				t.Fatal(err)
			}
			if reach := route.Endpoint.Target.Reach; reach == nil || !slices.Equal(reach.Fixed, want) || route.Endpoint.Target.Check() != nil {
				t.Errorf("the target reaches %+v", reach)
			}
			if held := Hold(entry, 2, v1alpha1.ReasonServiceNotFound); held.Service != nil || held.URL != "" || entry.Cost() != held.Cost() {
				t.Errorf("what waits leads to %v, and costs %d of %d", held.Service, held.Cost(), entry.Cost())
			}
		})
	}
}

func TestCompileRejectsServices(t *testing.T) {
	t.Parallel()
	edited := func(edit func(*corev1.ServiceSpec)) Sources { return withService(clusterService(edit)) }
	ref := func(edit func(*v1alpha1.ServiceReference)) *v1alpha1.WebhookSubscription {
		return leading(func(s *v1alpha1.WebhookSubscription) { edit(&s.Spec.ServiceRef) })
	}
	for name, test := range map[string]struct {
		sub           *v1alpha1.WebhookSubscription
		sources       Sources
		reason, words string
	}{
		"none": {nil, withService(nil), "ServiceNotFound", "create it"},
		"ExternalName": {nil, edited(func(s *corev1.ServiceSpec) {
			s.Type, s.ExternalName, s.ClusterIP, s.ClusterIPs = "ExternalName", canary, "", nil
		}), "ServiceNotAllowed", "leads out of the namespace"},
		"headless":      {nil, edited(func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "None", []string{"None"} }), "ServiceWithoutAddress", "headless"},
		"no cluster IP": {nil, edited(func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "", nil }), "ServiceWithoutAddress", "no cluster IP"},
		"loopback": {nil, edited(func(s *corev1.ServiceSpec) {
			s.ClusterIPs = []string{"127.0.0.1", "169.254.169.254", "0.0.0.0", "ff02::1"}
		}), "ServiceWithoutAddress", "no cluster IP"},
		"no selector":   {nil, edited(func(s *corev1.ServiceSpec) { s.Selector = nil }), "ServiceNotAllowed", "no selector"},
		"no such port":  {ref(func(r *v1alpha1.ServiceReference) { r.Port = 443 }), withService(clusterService()), "ServicePortMissing", "no port 443"},
		"a port of UDP": {ref(func(r *v1alpha1.ServiceReference) { r.Port = 53 }), withService(clusterService()), "ServicePortMissing", "of TCP"},
		"the API server": {leading(func(s *v1alpha1.WebhookSubscription) { s.Namespace, s.Spec.ServiceRef.Name = "default", "kubernetes" }),
			Sources{Secrets: withService(nil).Secrets, Services: func(string) (*corev1.Service, error) { return clusterService(), nil }}, "ServiceNotAllowed", "API server"},
		"in a folder":            {nil, secretsOf(clinicSecrets()), "InvalidSpec", "no Services in a folder"},
		"http":                   {ref(func(r *v1alpha1.ServiceReference) { r.Scheme = v1alpha1.ServiceHTTP }), withService(clusterService()), "HTTPNotAllowed", "allowHTTP"},
		"a URL, too":             {leading(func(s *v1alpha1.WebhookSubscription) { s.Spec.URL = "https://example.com/" }), withService(clusterService()), "InvalidURL", "exactly one"},
		"a URL of a Secret, too": {leading(func(s *v1alpha1.WebhookSubscription) { s.Spec.URLFrom = from("billing", "url") }), withService(clusterService()), "InvalidURL", "exactly one"},
		"a name":                 {ref(func(r *v1alpha1.ServiceReference) { r.Name = "receiver.clinic-b" }), withService(clusterService()), "InvalidSpec", "spec.serviceRef.name"},
		"no port":                {ref(func(r *v1alpha1.ServiceReference) { r.Port = 0 }), withService(clusterService()), "InvalidSpec", "spec.serviceRef.port"},
		"a path":                 {ref(func(r *v1alpha1.ServiceReference) { r.Path = "/a b" }), withService(clusterService()), "InvalidSpec", "spec.serviceRef.path"},
		"a user":                 {ref(func(r *v1alpha1.ServiceReference) { r.Path = "@example.com/" }), withService(clusterService()), "InvalidSpec", "spec.serviceRef.path"},
		"a scheme":               {ref(func(r *v1alpha1.ServiceReference) { r.Scheme = "FTP" }), withService(clusterService()), "InvalidSpec", "spec.serviceRef.scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := test.sub
			if sub == nil {
				sub = leading()
			}
			_, rejection, err := Compile(sub, test.sources, Policy{Catalog: catalog(t)})
			if err != nil || rejection == nil {
				t.Fatalf("got %v, %v; want %s", rejection, err, test.reason)
			}
			if rejection.Reason != test.reason || !strings.Contains(rejection.Message, test.words) || strings.Contains(rejection.Message, canary) {
				t.Errorf("got %s: %s; want %s with %q", rejection.Reason, rejection.Message, test.reason, test.words)
			}
		})
	}
	sources := withService(nil)
	sources.Services = func(string) (*corev1.Service, error) { return nil, errors.New("not now") }
	if _, rejection, err := Compile(leading(), sources, Policy{Catalog: catalog(t)}); rejection != nil || err == nil {
		t.Errorf("a Service that cannot be read: %v, %v; want an error that passes", rejection, err)
	}
}

// TestServiceVersion: all that a verdict follows from counts, also after a cache dropped the rest, and nothing else does.
func TestServiceVersion(t *testing.T) {
	t.Parallel()
	before := clusterService()
	KeepService(before)
	for name, test := range map[string]struct {
		edit func(*corev1.ServiceSpec)
		want bool // another
	}{
		"the same":         {func(*corev1.ServiceSpec) {}, false},
		"another selector": {func(s *corev1.ServiceSpec) { s.Selector = map[string]string{"app": "next"} }, false},
		"a target port":    {func(s *corev1.ServiceSpec) { s.Ports[1].NodePort = 30443 }, false},
		"no selector":      {func(s *corev1.ServiceSpec) { s.Selector = nil }, true},
		"another address":  {func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs[0] = "10.96.0.11", "10.96.0.11" }, true},
		"one address":      {func(s *corev1.ServiceSpec) { s.ClusterIPs = s.ClusterIPs[:1] }, true},
		"another port":     {func(s *corev1.ServiceSpec) { s.Ports[1].Port = 9443 }, true},
		"another protocol": {func(s *corev1.ServiceSpec) { s.Ports[1].Protocol = corev1.ProtocolUDP }, true},
		"another type":     {func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }, true},
		"headless":         {func(s *corev1.ServiceSpec) { s.ClusterIP = "None" }, true},
	} {
		after := clusterService(test.edit)
		whole := fmt.Sprint(serviceAddresses(after, leading().Spec.ServiceRef, "clinic-a"))
		KeepService(after)
		KeepService(after) // a transform may be applied twice
		if kept := fmt.Sprint(serviceAddresses(after, leading().Spec.ServiceRef, "clinic-a")); kept != whole {
			t.Errorf("%s: of what is kept, %s follows; of all, %s", name, kept, whole)
		}
		if got := ServiceVersion(after) != ServiceVersion(before); got != test.want {
			t.Errorf("%s: another version: %t, want %t", name, got, test.want)
		}
	}
	if ServiceVersion(nil) == ServiceVersion(before) {
		t.Error("a Service has the version of none")
	}
}

// TestRevisionFollowsTheService: an attempt at another address is another one.
func TestRevisionFollowsTheService(t *testing.T) {
	t.Parallel()
	revision := func(s *corev1.Service) int64 {
		entry, rejection, err := Compile(leading(), withService(s), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
		}
		return entry.Revision
	}
	if revision(clusterService()) == revision(clusterService(func(s *corev1.ServiceSpec) { s.ClusterIPs = []string{"10.96.0.11"} })) {
		t.Error("the revision is the one of before")
	}
}
