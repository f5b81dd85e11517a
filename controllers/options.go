package controllers

import (
	"context"
	"net"
	"os"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/controllers/deliveriesapi"
)

// DefaultNamespace is where config/default installs the manager.
const DefaultNamespace = "eventflow-system"

// Options are the settings of a manager.
type Options struct {
	// MetricsAddress serves /metrics; "0" serves none.
	MetricsAddress string
	// ProbeAddress serves /healthz and /readyz; "0" serves none.
	ProbeAddress string
	// LeaderElection lets several managers run, of which one works.
	LeaderElection bool
	// Namespace that the manager is installed in: of its lease, of the dispatchers that it may make without a grant, and of
	// references that name none. "" is the namespace of the manager's pod, or DefaultNamespace outside of a cluster.
	Namespace string
	// Namespaces are those whose subscriptions are worked on beside Namespace's. The manager then asks for nothing beyond them, so
	// that Roles suffice. None is all namespaces.
	Namespaces []string
	// Pod is the name of the manager's own pod; "" takes it from the environment variable POD_NAME.
	Pod string
	// Version of Event Flow that the manager is of; "" if that is not known.
	Version string
	// DispatcherImage is what dispatchers run; "" is the image of the manager's own pod.
	DispatcherImage string
	// CreateDefaultDispatcher creates the dispatcher "default", once, if there is none at all.
	CreateDefaultDispatcher bool
	// DefaultDispatcherNamespace is where it is created; "" is Namespace.
	DefaultDispatcherNamespace string
	// DeliveriesAPI lets a dispatcher that asks for it serve the deliveries API, which is registered with the cluster. It needs
	// the rights of config/components/deliveries-api.
	DeliveriesAPI bool
	// DeliveriesTiming is how often that is looked at, for tests; the zero value is how it should be.
	DeliveriesTiming deliveriesapi.Timing
	// DialDeliveries connects to a dispatcher's Service, for tests; nil dials it.
	DialDeliveries func(ctx context.Context, network, address string) (net.Conn, error)
	// SecretLabel is key=value: subscriptions may name Secrets with this label only; "" lets them name any.
	SecretLabel string
	// Logger takes what the manager has to say.
	Logger logr.Logger
}

// complete fills in what is not set from the environment, as the downward API writes it, and then with defaults.
func (o *Options) complete() {
	if o.Pod == "" {
		o.Pod = os.Getenv("POD_NAME")
	}
	if o.Namespace == "" {
		o.Namespace = os.Getenv("POD_NAMESPACE")
	}
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.DefaultDispatcherNamespace == "" {
		o.DefaultDispatcherNamespace = o.Namespace
	}
}
