package deliveriesapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	deliveries "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/dispatcher"
	"github.com/clinikapi/eventflow/controllers/names"
)

// The API server passes a request on to the Service by the same path as it will to the API: from its own network, and with
// nothing between that would not be there later.
//
// +kubebuilder:rbac:groups="",resources=services/proxy,verbs=get,roleName=eventflow-deliveries-namespace

const (
	// probeTimeout bounds each question to the pods.
	probeTimeout = 3 * time.Second
	// longestAnswer bounds what is read of an answer, in bytes.
	longestAnswer = 1 << 20
)

var discoveryPath = "/apis/" + deliveries.GroupVersion.String()

// prober asks a dispatcher's pods for discovery.
type prober struct {
	cluster kubernetes.Interface
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// reached asks by way of the API server. It returns the reason if there is no answer.
func (p *prober) reached(ctx context.Context, d client.ObjectKey) (reason, message string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	name := names.Deliveries(d.Name)
	body, err := p.cluster.CoreV1().Services(d.Namespace).
		ProxyGet("https", name, strconv.Itoa(dispatcher.DeliveriesServicePort), discoveryPath, nil).DoRaw(ctx)
	if err == nil {
		err = isDiscovery(body)
	}
	switch {
	case err == nil:
		return "", "", nil
	case apierrors.IsForbidden(err):
		return v1alpha1.ReasonRightsMissing, fmt.Sprintf("the manager may not ask the dispatcher's pods by way of the API server: bind ClusterRole %s to it in namespace %s", namespaceRole, d.Namespace), err
	default:
		return v1alpha1.ReasonUnreachable, fmt.Sprintf("the API server does not reach the pods by Service %s: they may be starting, or a network policy may be in the way", name), err
	}
}

// preflight is reached, and that the pods serve a certificate that the bundle verifies, as kube-apiserver will demand.
func (p *prober) preflight(ctx context.Context, d client.ObjectKey, bundle []byte) (reason, message string, err error) {
	if reason, message, err = p.reached(ctx, d); err != nil {
		return reason, message, err
	}
	err = p.verified(ctx, dispatcher.DeliveriesHosts(d)[0], bundle)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return v1alpha1.ReasonCertificateNotServed, "the pods serve another certificate than that of Secret " + names.Deliveries(d.Name) + ": a new one takes a minute or two", err
	}
	if err != nil {
		return v1alpha1.ReasonUnreachable, fmt.Sprintf("the API server reaches the pods, and the manager does not, by Service %s: a network policy may be in the way", names.Deliveries(d.Name)), err
	}
	return "", "", nil
}

// verified asks without the API server, whose way for this verifies no certificate.
func (p *prober) verified(ctx context.Context, host string, bundle []byte) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	transport := &http.Transport{
		DialContext: p.dial, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12},
	}
	address := "https://" + net.JoinHostPort(host, strconv.Itoa(dispatcher.DeliveriesServicePort)) + discoveryPath
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("discovery answers with status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return err
	}
	return isDiscovery(body)
}

// isDiscovery reports an error if an answer is not the discovery document of the API.
func isDiscovery(body []byte) error {
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("read discovery: %w", err)
	}
	if list.GroupVersion != deliveries.GroupVersion.String() || len(list.APIResources) == 0 {
		return errors.New("what answers is another API")
	}
	return nil
}
