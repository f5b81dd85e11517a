package doctor

import (
	"net/netip"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// Installation is what was seen of one, at one moment. What could not be read is in Unread, and empty here.
type Installation struct {
	// Version is that of this program.
	Version string
	// Now is when it was looked at.
	Now time.Time
	// Unread says of resources why they could not be read.
	Unread map[string]string

	Definitions   map[string]Definition
	Dispatchers   []v1alpha1.WebhookDispatcher
	Subscriptions []v1alpha1.WebhookSubscription
	Replays       []v1alpha1.WebhookReplay
	// Deployments, Pods and Claims are those that are labelled as Event Flow's.
	Deployments []appsv1.Deployment
	Pods        []corev1.Pod
	Claims      []corev1.PersistentVolumeClaim
	Classes     []storagev1.StorageClass
	Namespaces  []corev1.Namespace
	APIServices []APIService
	// Secrets and ConfigMaps are those that are named; nil for one that does not exist. Those that could not be read are not
	// here.
	Secrets    map[client.ObjectKey]map[string][]byte
	ConfigMaps map[client.ObjectKey]map[string][]byte
	// Hosts are what the names of endpoints resolve to, as this machine sees them.
	Hosts map[string]Host
}

// Definition is a resource definition.
type Definition struct {
	Versions    []string
	Established bool
}

// APIService is an API that the cluster serves by a Service.
type APIService struct {
	Name, Service   string
	Available       bool
	Reason, Message string
}

// Host is what a name resolves to.
type Host struct {
	Addresses []netip.Addr
	// Unknown is set if DNS says that there is no such name.
	Unknown bool
}

func (in *Installation) namespace(name string) *corev1.Namespace {
	for i := range in.Namespaces {
		if in.Namespaces[i].Name == name {
			return &in.Namespaces[i]
		}
	}
	return nil
}

func (in *Installation) dispatcher(key client.ObjectKey) *v1alpha1.WebhookDispatcher {
	for i := range in.Dispatchers {
		if client.ObjectKeyFromObject(&in.Dispatchers[i]) == key {
			return &in.Dispatchers[i]
		}
	}
	return nil
}
