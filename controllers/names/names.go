// Package names is how the objects that the manager makes are named and labelled.
package names

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FieldOwner owns the fields that the manager writes.
const FieldOwner = "eventflow-manager"

// The labels of everything that the manager makes.
const (
	// ManagedByLabel is ManagedBy on all of it: caches are restricted by this label.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel.
	ManagedBy = "eventflow-manager"
	// DispatcherLabel and DispatcherNamespaceLabel name the WebhookDispatcher that an object was made for.
	DispatcherLabel          = "webhooks.clinikapi.com/dispatcher"
	DispatcherNamespaceLabel = "webhooks.clinikapi.com/dispatcher-namespace"

	// InstanceLabel is the dispatcher's name on its pods.
	InstanceLabel = "app.kubernetes.io/instance"

	nameLabel      = "app.kubernetes.io/name"
	componentLabel = "app.kubernetes.io/component"
)

// The components of a dispatcher, as their labels say.
const (
	// DataPlane is what accepts and delivers events.
	DataPlane = "dispatcher"
	// RoutingTable is the Secrets that a dispatcher delivers by.
	RoutingTable = "routing-table"
	// Settings is the Secret with what a dispatcher takes over while it runs.
	Settings = "settings"
)

// The ClusterRoles that are installed with the manager. A dispatcher's ServiceAccount is bound to the first two by
// ClusterRoleBindings of the same names.
const (
	// StatusRole allows to patch the status of subscriptions.
	StatusRole = "eventflow-dispatcher-status"
	// AuthRole allows to ask who publishes, and whether they may.
	AuthRole = "eventflow-dispatcher-auth"
	// DeliveriesRole allows to read how kube-apiserver names the users of an aggregated API. A dispatcher that serves the
	// deliveries API is bound to it. Its ClusterRoleBinding, of the same name, is installed if the manager may register that
	// API, and owns what the manager registers.
	DeliveriesRole = "eventflow-dispatcher-deliveries"
	// NamespaceRole allows the manager to make dispatchers in the namespaces in which it is bound to the manager.
	NamespaceRole = "eventflow-dispatcher-namespace"
	// TenantRole allows a manager with Roles alone to work on the subscriptions of the namespaces in which it is bound to the
	// manager.
	TenantRole = "eventflow-tenant-namespace"
)

// Workload is the name of what a dispatcher becomes in its namespace: Deployment, Service, ServiceAccount and so on.
func Workload(dispatcher string) string { return "eventflow-dispatcher-" + dispatcher }

// Claim is the name of the PersistentVolumeClaim that holds a dispatcher's embedded store.
func Claim(dispatcher string) string { return Workload(dispatcher) + "-store" }

// Deliveries is the name of the Service of a dispatcher's deliveries API, and of the Secret with its certificate.
func Deliveries(dispatcher string) string { return "eventflow-deliveries-" + dispatcher }

// Ingest is the name of the Secret with the certificate that the manager makes for a dispatcher's publish API.
func Ingest(dispatcher string) string { return "eventflow-ingest-" + dispatcher }

// IngestCA is the name of the ConfigMap with what producers trust.
func IngestCA(dispatcher string) string { return "eventflow-ca-" + dispatcher }

// Labels are the labels of an object that is made for a dispatcher.
func Labels(component string, dispatcher client.ObjectKey) map[string]string {
	labels := Selector(dispatcher.Name)
	labels[componentLabel] = component
	labels[ManagedByLabel] = ManagedBy
	labels[DispatcherLabel] = dispatcher.Name
	labels[DispatcherNamespaceLabel] = dispatcher.Namespace
	return labels
}

// Selector are the labels by which a dispatcher's pods are found in its namespace. They never change: a Deployment's
// selector is immutable.
func Selector(dispatcher string) map[string]string {
	return map[string]string{nameLabel: "eventflow", componentLabel: DataPlane, InstanceLabel: dispatcher}
}

// Dispatcher returns the WebhookDispatcher that an object was made for, and false if its labels name none.
func Dispatcher(object metav1.Object) (client.ObjectKey, bool) {
	labels := object.GetLabels()
	key := client.ObjectKey{Namespace: labels[DispatcherNamespaceLabel], Name: labels[DispatcherLabel]}
	return key, labels[ManagedByLabel] == ManagedBy && key.Name != "" && key.Namespace != ""
}
