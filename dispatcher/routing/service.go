package routing

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	serviceField = "spec.serviceRef"
	// maxServicePath is the schema's.
	maxServicePath = 1024
	// serviceCost is what an address of a Service takes of a table; see Entry.Cost.
	serviceCost = 48
)

// pathRule is the schema's.
var pathRule = regexp.MustCompile(`^/([-._~!$&'()*+,;=:@/?a-zA-Z0-9]|%[0-9a-fA-F]{2})*$`)

// noService is what spec.serviceRef is where it is not set.
var noService v1alpha1.ServiceReference

// Services returns the Service with the given name in the subscription's namespace, nil if there is none. An error means that
// it could not be told. Of a Service, its spec counts.
type Services func(name string) (*corev1.Service, error)

// PlaceholderServices has every Service, each as good as one can be. It is for tools, which make no connection.
func PlaceholderServices(sub *v1alpha1.WebhookSubscription) Services {
	return func(name string) (*corev1.Service, error) {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: sub.Namespace}}
		service.Spec.ClusterIPs, service.Spec.Selector = []string{"192.0.2.1"}, map[string]string{"app": name}
		service.Spec.Ports = []corev1.ServicePort{{Port: sub.Spec.ServiceRef.Port}}
		return service, nil
	}
}

func checkService(ref v1alpha1.ServiceReference) error {
	invalid := func(field, message string) error {
		return reject(v1alpha1.ReasonInvalidSpec, "%s.%s: %s", serviceField, field, message)
	}
	switch {
	case ref == noService:
		return nil
	case len(validation.IsDNS1123Label(ref.Name)) > 0:
		return invalid("name", "name a Service: lower-case letters, digits and dashes, at most 63")
	case ref.Port < 1 || ref.Port > 65535:
		return invalid("port", "must be from 1 to 65535")
	case len(ref.Path) > maxServicePath || !pathRule.MatchString(ref.Path):
		return invalid("path", fmt.Sprintf("must begin with a slash, have no character that a URL escapes, and at most %d", maxServicePath))
	case ref.Scheme != v1alpha1.ServiceHTTPS && ref.Scheme != v1alpha1.ServiceHTTP:
		return invalid("scheme", "must be HTTPS or HTTP")
	}
	return nil
}

// serviceURL is the URL of a Service: its host is what requests, and the certificate, name. A scheme's own port is left out,
// as clients do.
func serviceURL(ref v1alpha1.ServiceReference, namespace string) string {
	scheme, standard := "https", int32(443)
	if ref.Scheme == v1alpha1.ServiceHTTP {
		scheme, standard = "http", 80
	}
	host := ref.Name + "." + namespace + ".svc"
	if ref.Port != standard {
		host += ":" + strconv.Itoa(int(ref.Port))
	}
	return scheme + "://" + host + ref.Path
}

// Origin is what Entry.Origin of an accepted subscription is; "" if its URL stands in a Secret.
func Origin(sub *v1alpha1.WebhookSubscription) string {
	shown := Entry{URL: sub.Spec.URL}
	if ref := withDefaults(sub.Spec).ServiceRef; ref != noService && checkService(ref) == nil {
		shown.URL = serviceURL(ref, sub.Namespace)
	}
	return shown.Origin()
}

// compileService takes up the addresses of the Service.
func (c *compiler) compileService() error {
	ref := c.spec.ServiceRef
	switch {
	case ref == noService:
		return nil
	case c.sources.Services == nil:
		return reject(v1alpha1.ReasonInvalidSpec, "%s: there are no Services in a folder: write spec.url", serviceField)
	}
	service, err := c.sources.Services(ref.Name)
	if err != nil {
		return fmt.Errorf("read Service %q: %w", ref.Name, err)
	}
	c.entry.Service, err = serviceAddresses(service, ref, c.namespace)
	return err
}

// serviceAddresses are the cluster IPs of a Service, nil if there is none; or why no delivery goes there.
func serviceAddresses(service *corev1.Service, ref v1alpha1.ServiceReference, namespace string) ([]netip.Addr, error) {
	refused := func(reason, message string) ([]netip.Addr, error) {
		return nil, reject(reason, "Service %q in namespace %q %s", ref.Name, namespace, message)
	}
	switch {
	case namespace == metav1.NamespaceDefault && ref.Name == "kubernetes":
		return refused(v1alpha1.ReasonServiceNotAllowed, "is the API server: name another in "+serviceField)
	case service == nil:
		return refused(v1alpha1.ReasonServiceNotFound, "is not there: create it, or correct "+serviceField)
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return refused(v1alpha1.ReasonServiceNotAllowed, "is of type ExternalName, and leads out of the namespace: write the URL into spec.url")
	case service.Spec.ClusterIP == corev1.ClusterIPNone:
		return refused(v1alpha1.ReasonServiceWithoutAddress, "is headless: make one with a cluster IP, or write the URL into spec.url")
	case len(service.Spec.Selector) == 0:
		return refused(v1alpha1.ReasonServiceNotAllowed, "has no selector, so that its endpoints may be anywhere: give it one, or write the URL into spec.url")
	case !hasPort(service, ref.Port):
		return refused(v1alpha1.ReasonServicePortMissing, fmt.Sprintf("has no port %d of TCP: add it, or correct %s.port", ref.Port, serviceField))
	}
	var addresses []netip.Addr
	for _, text := range service.Spec.ClusterIPs {
		address, err := netip.ParseAddr(text)
		if err == nil && !address.IsLoopback() && !address.IsLinkLocalUnicast() && !address.IsMulticast() && !address.IsUnspecified() {
			addresses = append(addresses, address.Unmap())
		}
	}
	if len(addresses) == 0 {
		return refused(v1alpha1.ReasonServiceWithoutAddress, "has no cluster IP: make one that has, or write the URL into spec.url")
	}
	return addresses, nil
}

func hasPort(service *corev1.Service, port int32) bool {
	for _, p := range service.Spec.Ports {
		if p.Port == port && (p.Protocol == corev1.ProtocolTCP || p.Protocol == "") {
			return true
		}
	}
	return false
}

// ServiceVersion is equal for Services, nil if there is none, that serve a subscription alike.
func ServiceVersion(service *corev1.Service) string {
	if service == nil {
		return ""
	}
	spec := &service.Spec
	ports := make([]string, 0, len(spec.Ports))
	for _, p := range spec.Ports {
		ports = append(ports, fmt.Sprintf("%s/%d", p.Protocol, p.Port))
	}
	return fmt.Sprintf("%s %s %s %s %t", spec.Type, spec.ClusterIP, strings.Join(spec.ClusterIPs, ","), strings.Join(ports, ","), len(spec.Selector) > 0)
}

// KeepService drops what serviceAddresses and ServiceVersion do not read: a cache may hold every Service of a cluster.
func KeepService(service *corev1.Service) {
	spec := &service.Spec
	kept := corev1.ServiceSpec{Type: spec.Type, ClusterIP: spec.ClusterIP, ClusterIPs: spec.ClusterIPs}
	for _, p := range spec.Ports {
		kept.Ports = append(kept.Ports, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port})
	}
	if len(spec.Selector) > 0 {
		kept.Selector = map[string]string{"kept": ""}
	}
	service.Spec, service.Status, service.Labels = kept, corev1.ServiceStatus{}, nil
}
