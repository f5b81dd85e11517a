package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WebhookDispatcherSpec is the wanted state of a WebhookDispatcher.
//
// +kubebuilder:validation:XValidation:rule="!has(self.store) || !has(self.store.embedded) || !has(self.replicas) || self.replicas <= 1",message="the embedded store works with at most one replica"
type WebhookDispatcherSpec struct {
	// replicas is how many pods share the work, at most one with the embedded store; 0 stops delivery and publishing, and
	// keeps the store. Leave it out where an autoscaler sets it.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`

	// store is where events and deliveries are kept. Exactly one kind must be set, and it cannot be changed to the other, but
	// for an embedded store that never held an event.
	// +optional
	// +kubebuilder:default={embedded: {}}
	Store Store `json:"store,omitzero"`

	// subscriptions tells whose subscriptions may use this dispatcher.
	// +optional
	// +kubebuilder:default={}
	Subscriptions SubscriptionSelector `json:"subscriptions,omitzero"`

	// ingest is how events are accepted. A change of authentication replaces the pods; others take effect while they run.
	// +optional
	// +kubebuilder:default={}
	Ingest Ingest `json:"ingest,omitzero"`

	// egress is what deliveries may reach. A change takes effect while the pods run.
	// +optional
	// +kubebuilder:default={}
	Egress Egress `json:"egress,omitzero"`

	// retention is how long finished deliveries are kept. A change takes effect while the pods run.
	// +optional
	// +kubebuilder:default={}
	Retention Retention `json:"retention,omitzero"`

	// quotas are what each tenant, which is a namespace, may use of this dispatcher. Without, tenants share what there is:
	// one may take as much as is free. A change takes effect while the pods run.
	// +optional
	Quotas Quotas `json:"quotas,omitzero"`

	// limits bound what one pod of the dispatcher takes. What is not set follows from its container's memory and file
	// descriptors. A change replaces the pods.
	// +optional
	Limits Limits `json:"limits,omitzero"`

	// eventResources are a site's own resources, added to the 14 that every dispatcher knows. A change takes effect while the
	// pods run.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="must be lower-case letters, digits and inner dashes, such as lab-order"
	EventResources []string `json:"eventResources,omitempty"`

	// template is laid over the dispatcher's pods. A change replaces them.
	// +optional
	Template PodTemplate `json:"template,omitzero"`

	// service is laid over the dispatcher's Service.
	// +optional
	Service ServiceTemplate `json:"service,omitzero"`
}

// Store is where a dispatcher keeps events and deliveries.
//
// +kubebuilder:validation:ExactlyOneOf=embedded;postgres
type Store struct {
	// embedded keeps them on a volume of the dispatcher's own, for one pod.
	// +optional
	Embedded *EmbeddedStore `json:"embedded,omitempty"`

	// postgres keeps them in a PostgreSQL database, for any number of pods.
	// +optional
	Postgres *PostgresStore `json:"postgres,omitempty"`
}

// EmbeddedStore is a store on a PersistentVolumeClaim. The claim outlives the dispatcher: delete it by hand once its
// events are no longer wanted.
type EmbeddedStore struct {
	// size of the volume. It can grow where the storage class allows it, and never shrink once an event was kept on it.
	// +optional
	// +kubebuilder:default="10Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('64Mi')) >= 0",message="must be at least 64Mi"
	Size resource.Quantity `json:"size,omitzero"`

	// storageClassName of the volume; unset, the cluster's default class. It cannot be changed once an event was kept on the
	// volume.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	StorageClassName string `json:"storageClassName,omitempty"`

	// accessMode of the volume; without, ReadWriteOncePod. Storage drivers that lack it need ReadWriteOnce. It cannot be
	// changed once an event was kept on the volume.
	// +optional
	// +kubebuilder:validation:Enum=ReadWriteOncePod;ReadWriteOnce
	AccessMode VolumeAccessMode `json:"accessMode,omitempty"`
}

// VolumeAccessMode is how many pods may use a volume.
type VolumeAccessMode string

// PostgresStore is a store in a PostgreSQL database, which is this dispatcher's alone. Its Secrets are in the
// dispatcher's namespace; a change of one restarts the pods, one after another.
type PostgresStore struct {
	// connectionSecretRef names the key of a Secret that holds the database's URL, postgres://user:password@host/database;
	// CloudNativePG writes one as key uri.
	// +required
	ConnectionSecretRef SecretKeyReference `json:"connectionSecretRef,omitzero"`

	// caSecretRef names the key of a Secret that holds the certificates, in PEM, that the database's own must be signed by.
	// With it, the connection is by TLS and the host's name is verified (sslmode=verify-full), unless the URL says verify-ca.
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`
}

// SubscriptionSelector tells whose subscriptions may use a dispatcher.
type SubscriptionSelector struct {
	// namespaceSelector selects namespaces by label; the empty selector, which is the default, selects all.
	// +optional
	// +kubebuilder:default={}
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector,omitzero"`
}

// IngestAuthentication is how a dispatcher knows who publishes.
// +kubebuilder:validation:Enum=Kubernetes;None
type IngestAuthentication string

// The ways of authentication.
const (
	// IngestKubernetes asks the API server: TokenReview, and SubjectAccessReview for create webhookevents.
	IngestKubernetes IngestAuthentication = "Kubernetes"
	// IngestNone lets anyone who reaches the dispatcher publish into any namespace.
	IngestNone IngestAuthentication = "None"
)

// Ingest is how events are accepted.
type Ingest struct {
	// authentication is Kubernetes for service account tokens that RBAC allows to create webhookevents in the event's
	// namespace, or None where something in front of the dispatcher decides.
	// +optional
	// +kubebuilder:default=Kubernetes
	Authentication IngestAuthentication `json:"authentication,omitempty"`

	// maxEventBytes bounds one event's JSON.
	// +optional
	// +kubebuilder:default=1048576
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=8388608
	MaxEventBytes int32 `json:"maxEventBytes,omitempty"`

	// outageGrace is how long a token goes on being accepted, from its last review on, while the API server cannot be
	// reached. It ends at once when the API server says no. 0s accepts nothing that was not reviewed.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('5m')",message="must be a duration from 0s to 5m, written like 90s"
	OutageGrace *metav1.Duration `json:"outageGrace,omitempty"`
}

// Egress is what deliveries may reach. Public addresses are allowed, private and special ones (RFC 6890) are not; ports 80,
// 443 and from 1024 on are allowed.
type Egress struct {
	// allowHTTP allows endpoints without TLS.
	// +optional
	// +kubebuilder:default=false
	AllowHTTP *bool `json:"allowHTTP,omitempty"`

	// rules let the deliveries of some namespaces reach address ranges that are private or special. All rules that select
	// a namespace hold for it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Rules []EgressRule `json:"rules,omitempty"`

	// allowedPorts are ports below 1024 that are allowed beside 80 and 443.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	AllowedPorts []int32 `json:"allowedPorts,omitempty"`

	// allowedCIDRs are address ranges that the deliveries of every tenant may reach although they are private or special,
	// such as 10.96.0.0/12. Prefer rules, which say for which namespaces.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.96.0.0/12"
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`

	// deniedCIDRs are address ranges that are refused whatever else allows them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.96.0.0/12"
	DeniedCIDRs []string `json:"deniedCIDRs,omitempty"`
}

// EgressRule lets the deliveries of some namespaces reach address ranges.
type EgressRule struct {
	// namespaceSelector selects namespaces by label; the empty selector selects all.
	// +required
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// cidrs are the address ranges, such as 10.96.0.10/32.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.96.0.10/32"
	CIDRs []string `json:"cidrs,omitempty"`

	// ports within those ranges; without, those that are allowed for public addresses.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	Ports []int32 `json:"ports,omitempty"`
}

// TenantLimits are what one tenant may use of a dispatcher. What is not set is not limited, but shared.
type TenantLimits struct {
	// subscriptions that are accepted. Those that were accepted before a limit was lowered stay.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Subscriptions int32 `json:"subscriptions,omitempty"`

	// configurationBytes of all subscriptions: URLs, headers, keys, certificates and patterns, those from Secrets included,
	// and about 200 bytes for each subscription.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Ki')) >= 0",message="must be at least 1Ki"
	ConfigurationBytes resource.Quantity `json:"configurationBytes,omitzero"`

	// eventsPerSecond that are accepted; what is beyond is answered with 429.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	EventsPerSecond int32 `json:"eventsPerSecond,omitempty"`

	// eventsBurst is how many events are accepted at once after a pause; without, eventsPerSecond.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	EventsBurst int32 `json:"eventsBurst,omitempty"`

	// pendingBytes of events that are still to be delivered; what is beyond is answered with 429.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0",message="must be at least 1Mi"
	PendingBytes resource.Quantity `json:"pendingBytes,omitzero"`

	// pendingDeliveries that are still to be made; events that would cause more are answered with 429.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	PendingDeliveries int64 `json:"pendingDeliveries,omitempty"`

	// attemptsInFlight that are under way at once.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	AttemptsInFlight int32 `json:"attemptsInFlight,omitempty"`
}

// Quotas are what each tenant may use of a dispatcher.
type Quotas struct {
	TenantLimits `json:",inline"`

	// overrides are other limits for some namespaces. The first that selects a namespace holds for it; a limit that it does
	// not set is that of all others.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=12
	Overrides []QuotaOverride `json:"overrides,omitempty"`
}

// QuotaOverride is what the tenants of some namespaces may use.
type QuotaOverride struct {
	// namespaceSelector selects namespaces by label; the empty selector selects all.
	// +required
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	TenantLimits `json:",inline"`
}

// Limits bound what one pod of a dispatcher takes.
type Limits struct {
	// attemptsInFlight over all tenants.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	AttemptsInFlight int32 `json:"attemptsInFlight,omitempty"`

	// connections of producers that are open at once.
	// +optional
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=1000000
	Connections int32 `json:"connections,omitempty"`

	// memory for events that are being accepted or delivered.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('16Mi')) >= 0",message="must be at least 16Mi"
	Memory resource.Quantity `json:"memory,omitzero"`
}

// Retention is how long finished deliveries, and the events they delivered, are kept.
type Retention struct {
	// delivered is how long a delivery is kept, listed and replayable after it was delivered.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1h') && duration(self) <= duration('2160h')",message="must be a duration from 1h to 2160h, written like 36h"
	Delivered metav1.Duration `json:"delivered,omitzero"`

	// failed is how long a delivery is kept, listed and replayable after it was given up or cancelled.
	// +optional
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1h') && duration(self) <= duration('2160h')",message="must be a duration from 1h to 2160h, written like 36h"
	Failed metav1.Duration `json:"failed,omitzero"`
}

// PodTemplate is laid over a dispatcher's pods. What the dispatcher itself sets there is refused.
type PodTemplate struct {
	// labels are added to the pods.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.all(k, !(k in ['app.kubernetes.io/name', 'app.kubernetes.io/component', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by']) && !k.startsWith('webhooks.clinikapi.com/'))",message="must not set a label by which the dispatcher's pods are found: app.kubernetes.io/name, component, instance, managed-by, webhooks.clinikapi.com/…"
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are added to the pods.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('webhooks.clinikapi.com/'))",message="must not set an annotation of the manager's own: webhooks.clinikapi.com/…"
	Annotations map[string]string `json:"annotations,omitempty"`

	// serviceAccountAnnotations are added to the pods' ServiceAccount, such as the cloud identity that it stands for.
	// +optional
	ServiceAccountAnnotations map[string]string `json:"serviceAccountAnnotations,omitempty"`

	// resources of the dispatcher's container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// nodeSelector of the pods.
	// +optional
	// +mapType=atomic
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// tolerations of the pods.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// affinity of the pods.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// topologySpreadConstraints of the pods, in place of those that the manager gives to pods on a database.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// priorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// imagePullSecrets of the pods.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// env of the dispatcher's container. Flags that the manager sets go before it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(e, !(e.name in ['EVENTFLOW_STORE', 'EVENTFLOW_STATE_DIR', 'EVENTFLOW_ROUTES', 'EVENTFLOW_KUBECONFIG', 'PGSSLMODE', 'PGSSLROOTCERT', 'KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT']))",message="must not set what tells the dispatcher where its store, its routing table and its API server are: EVENTFLOW_STORE, EVENTFLOW_STATE_DIR, EVENTFLOW_ROUTES, EVENTFLOW_KUBECONFIG, PGSSLMODE, PGSSLROOTCERT, KUBERNETES_SERVICE_…"
	Env []corev1.EnvVar `json:"env,omitempty"`

	// envFrom of the dispatcher's container. What the manager sets goes before it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	EnvFrom []corev1.EnvFromSource `json:"envFrom,omitempty"`

	// volumes are added to the pods.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(v, !(v.name in ['store', 'state', 'database-ca']))",message="must not have the name of one of the dispatcher's own volumes: store, state, database-ca"
	Volumes []TemplateVolume `json:"volumes,omitempty"`

	// volumeMounts are added to the dispatcher's container.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(m, !(m.name in ['store', 'state', 'database-ca']) && m.mountPath != '/' && !['/data', '/state', '/etc/eventflow/database-ca', '/var/run/secrets/kubernetes.io'].exists(p, m.mountPath == p || m.mountPath.startsWith(p + '/')))",message="must not lie on or mount one of the dispatcher's own volumes: store, state, database-ca, and /, /data, /state, /etc/eventflow/database-ca, /var/run/secrets/kubernetes.io"
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`

	// securityContext of the pods, in place of the image's user and groups; {} leaves them to the cluster, as OpenShift
	// wants it. runAsNonRoot is always true.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.runAsNonRoot) || self.runAsNonRoot",message="the dispatcher never runs as root: leave runAsNonRoot out"
	// +kubebuilder:validation:XValidation:rule="!has(self.runAsUser) || self.runAsUser != 0",message="the dispatcher never runs as root: name another user than 0"
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`
}

// TemplateVolume is a volume of one of the kinds that the restricted Pod Security Standard allows.
//
// +kubebuilder:validation:ExactlyOneOf=configMap;secret;emptyDir;projected;csi;persistentVolumeClaim
type TemplateVolume struct {
	// name of the volume.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// configMap of the dispatcher's namespace.
	// +optional
	ConfigMap *corev1.ConfigMapVolumeSource `json:"configMap,omitempty"`

	// secret of the dispatcher's namespace.
	// +optional
	Secret *corev1.SecretVolumeSource `json:"secret,omitempty"`

	// emptyDir shares the pod's lifetime.
	// +optional
	EmptyDir *corev1.EmptyDirVolumeSource `json:"emptyDir,omitempty"`

	// projected combines several sources.
	// +optional
	Projected *corev1.ProjectedVolumeSource `json:"projected,omitempty"`

	// csi is a volume of a driver, such as one for secrets.
	// +optional
	CSI *corev1.CSIVolumeSource `json:"csi,omitempty"`

	// persistentVolumeClaim of the dispatcher's namespace.
	// +optional
	PersistentVolumeClaim *corev1.PersistentVolumeClaimVolumeSource `json:"persistentVolumeClaim,omitempty"`
}

// ServiceType is how a Service is reached.
// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer
type ServiceType string

// ServiceTemplate is laid over a dispatcher's Service.
type ServiceTemplate struct {
	// type of the Service; without, ClusterIP.
	// +optional
	Type ServiceType `json:"type,omitempty"`

	// annotations are added to the Service.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// ipFamilyPolicy of the Service; without, the cluster's default.
	// +optional
	// +kubebuilder:validation:Enum=SingleStack;PreferDualStack;RequireDualStack
	IPFamilyPolicy corev1.IPFamilyPolicy `json:"ipFamilyPolicy,omitempty"`

	// ipFamilies of the Service, the primary one first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:Enum=IPv4;IPv6
	IPFamilies []corev1.IPFamily `json:"ipFamilies,omitempty"`
}

// WebhookDispatcherStatus is the observed state of a WebhookDispatcher.
type WebhookDispatcherStatus struct {
	// observedGeneration is the generation of the spec that the manager saw last; -1 while it has seen none.
	// +optional
	// +kubebuilder:default=-1
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// settingsGeneration is the generation of the spec whose settings every pod works by: the fields that take effect without
	// a restart. The pods set it.
	// +optional
	// +kubebuilder:validation:Minimum=1
	SettingsGeneration int64 `json:"settingsGeneration,omitempty"`

	// conditions are Accepted, Available, StoreReady and Ready. Reconciling and Stalled are there only while they are True: the
	// dispatcher does not run as its spec says yet, or will not until someone changes something.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// version of Event Flow that the pods run, as the one that started last says.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// store is what the pods say of their store. The condition StoreReady follows from it.
	// +optional
	Store StoreReport `json:"store,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// publishURL is where pods of the cluster publish events, up to the path.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	PublishURL string `json:"publishURL,omitempty"`

	// replicas counts the pods, also those that are not ready.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`

	// selector selects the pods by label, for autoscalers.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Selector string `json:"selector,omitempty"`

	// volume says whether the volume of an embedded store ever held an event. One that did not gives way to another.
	// +optional
	Volume VolumeStatus `json:"volume,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// subscriptions counts the subscriptions in the routing table.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Subscriptions *int32 `json:"subscriptions,omitempty"`

	// largestTenants are the namespaces with the most deliveries pending, the largest first. They are written at most once a
	// minute.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	LargestTenants []TenantUsage `json:"largestTenants,omitempty"`
}

// StoreReport is what a dispatcher's pods say of their store.
type StoreReport struct {
	// reason in one CamelCase word: StoreReady, or why it takes no events, as in the condition StoreReady.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
}

// StoreUse says whether a store ever held an event.
// +kubebuilder:validation:Enum=Unused;Used;Abandoned
type StoreUse string

// The uses of a store. Whoever changes one writes it only over the state that was read, so that a store is not used and
// abandoned at once.
const (
	// StoreUnused never held an event. A dispatcher makes it Used before it accepts the first one.
	StoreUnused StoreUse = "Unused"
	// StoreUsed held an event, once at least. It stays so.
	StoreUsed StoreUse = "Used"
	// StoreAbandoned was Unused when the manager began to replace it. It accepts no event.
	StoreAbandoned StoreUse = "Abandoned"
)

// VolumeStatus is what is known of the volume of an embedded store.
type VolumeStatus struct {
	// id of the store, made with it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// use is Unused until the first event is accepted, and then Used; Abandoned while another volume takes the place of one
	// that is Unused.
	// +required
	Use StoreUse `json:"use,omitempty"`
}

// TenantUsage is what one namespace uses of a dispatcher.
type TenantUsage struct {
	// namespace is the tenant's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// pendingDeliveries wait to be delivered.
	// +required
	// +kubebuilder:validation:Minimum=1
	PendingDeliveries int64 `json:"pendingDeliveries,omitempty"`

	// pendingBytes are those of the bodies of these deliveries.
	// +required
	// +kubebuilder:validation:Minimum=1
	PendingBytes int64 `json:"pendingBytes,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=whdisp,categories=eventflow
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="Subscriptions",type=integer,JSONPath=`.status.subscriptions`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Publish URL",type=string,priority=1,JSONPath=`.status.publishURL`

// WebhookDispatcher is one data plane: a Deployment that accepts events, keeps them and delivers them.
//
// +kubebuilder:validation:XValidation:rule="has(self.spec.store.embedded) == has(oldSelf.spec.store.embedded) || (has(oldSelf.status) && has(oldSelf.status.volume) && (oldSelf.status.volume.use != 'Used' || has(self.spec.store.embedded)))",message="the kind of store is immutable: events and deliveries stay in the store that accepted them; create another WebhookDispatcher with the other kind, and name it in new subscriptions"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",message="the name must be a DNS label of at most 40 characters, such as default: the names of its Service and its pods are made of it"
type WebhookDispatcher struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the wanted state.
	// +optional
	// +kubebuilder:default={}
	Spec WebhookDispatcherSpec `json:"spec,omitzero"`

	// status is the observed state.
	// +optional
	// +kubebuilder:default={}
	Status WebhookDispatcherStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// WebhookDispatcherList is a list of WebhookDispatchers.
type WebhookDispatcherList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []WebhookDispatcher `json:"items"`
}
