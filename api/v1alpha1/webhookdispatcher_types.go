package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WebhookDispatcherSpec is the wanted state of a WebhookDispatcher.
//
// +kubebuilder:validation:XValidation:rule="!has(self.store) || !has(self.store.embedded) || !has(self.replicas) || self.replicas <= 1",message="the embedded store works with at most one replica"
// +kubebuilder:validation:XValidation:rule="!has(self.deliveriesAPI) || !has(self.deliveriesAPI.enabled) || !self.deliveriesAPI.enabled || !has(self.ingest) || !has(self.ingest.authentication) || self.ingest.authentication == 'Kubernetes'",message="the deliveries API asks the API server who may read: it needs spec.ingest.authentication Kubernetes"
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

	// encryption is how what producers send is kept in the store. A change replaces the pods.
	// +optional
	// +kubebuilder:default={mode: Disabled}
	Encryption Encryption `json:"encryption,omitzero"`

	// subscriptions tells whose subscriptions may use this dispatcher.
	// +optional
	// +kubebuilder:default={}
	Subscriptions SubscriptionSelector `json:"subscriptions,omitzero"`

	// ingest is how events are accepted. A change of authentication, hosts, audiences, tls or clientCA replaces the pods; others
	// take effect while they run.
	// +optional
	// +kubebuilder:default={}
	Ingest Ingest `json:"ingest,omitzero"`

	// audit is who of those that use the dispatcher is recorded, on standard output of its pods. A change replaces the pods.
	// +optional
	Audit Audit `json:"audit,omitzero"`

	// deliveriesAPI serves this dispatcher's deliveries as Kubernetes resources of deliveries.webhooks.clinikapi.com. A change
	// replaces the pods.
	// +optional
	// +kubebuilder:default={}
	DeliveriesAPI DeliveriesAPI `json:"deliveriesAPI,omitzero"`

	// egress is what deliveries may reach. A change takes effect while the pods run, but for that of the proxy.
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
	// +kubebuilder:validation:items:XValidation:rule="self != 'eventflow' && !format.dns1123Label().validate(self).hasValue()",message="must be lower-case letters, digits and inner dashes, such as lab-order, and not eventflow"
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

// EncryptionMode is whether a dispatcher encrypts. The words are not On and Off, which YAML takes for true and false.
// +kubebuilder:validation:Enum=Disabled;Enabled
type EncryptionMode string

// The modes of encryption.
const (
	// EncryptionDisabled keeps events in the clear.
	EncryptionDisabled EncryptionMode = "Disabled"
	// EncryptionEnabled keeps bodies, ids and trace contexts of new events as ciphertexts, by a key of each namespace.
	EncryptionEnabled EncryptionMode = "Enabled"
)

// Encryption is how what producers send is kept in the store.
//
// +kubebuilder:validation:XValidation:rule="self.mode == 'Enabled' || oldSelf.mode != 'Enabled'",message="cannot be disabled again: what is stored could not be read any more"
type Encryption struct {
	// mode is Disabled or Enabled. What is stored when it is enabled stays in the clear until its retention ends. It cannot be
	// disabled again.
	// +optional
	// +kubebuilder:default=Disabled
	Mode EncryptionMode `json:"mode,omitempty"`

	// keySecretRef names a Secret in the dispatcher's namespace. Its key current holds the name of another key, whose 32 random
	// bytes, or their base64, encrypt the namespaces' keys; those before it stay until nothing needs them. Without, the
	// manager makes a Secret eventflow-encryption-NAME, and never changes it.
	// +optional
	KeySecretRef *SecretReference `json:"keySecretRef,omitempty"`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.clientCA) || !has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'Disabled'",message="client certificates need TLS: set tls.mode to Required or Optional, or remove clientCA"
// +kubebuilder:validation:XValidation:rule="!(has(self.clientCA) || has(self.audiences)) || !has(self.authentication) || self.authentication == 'Kubernetes'",message="audiences and clientCA are about who publishes: they need authentication Kubernetes"
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

	// hosts are host names by which clients may name the dispatcher without authentication, such as that of an Ingress. Beside
	// them, it answers under IP addresses, the names of its Service, and names that nobody can register.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a host name in lower case, without a port, such as events.example.com"
	Hosts []string `json:"hosts,omitempty"`

	// outageGrace is how long a token goes on being accepted, from its last review on, while the API server cannot be
	// reached. It ends at once when the API server says no. 0s accepts nothing that was not reviewed.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('5m')",message="must be a duration from 0s to 5m, written like 90s"
	OutageGrace *metav1.Duration `json:"outageGrace,omitempty"`

	// audiences are those of which a token has to be meant for one, such as the dispatcher's URL; without, it is the API server
	// itself. A token for another audience is refused, so that nobody who is shown one can use it elsewhere.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Audiences []string `json:"audiences,omitempty"`

	// tls is how the connections of producers are secured.
	// +optional
	TLS IngestTLS `json:"tls,omitzero"`

	// clientCA lets producers use a client certificate in place of a token. Its common name is the user, its organizations are
	// the groups, and RBAC decides as for tokens. Names that begin with system: are refused.
	// +optional
	ClientCA *ClientCA `json:"clientCA,omitempty"`
}

// IngestTLSMode is how the publish API is reached.
// +kubebuilder:validation:Enum=Required;Optional;Disabled
type IngestTLSMode string

// The ways to reach the publish API.
const (
	// IngestTLSRequired is by https alone.
	IngestTLSRequired IngestTLSMode = "Required"
	// IngestTLSOptional is by https and by http, for as long as some producers speak no TLS.
	IngestTLSOptional IngestTLSMode = "Optional"
	// IngestTLSDisabled is by http alone.
	IngestTLSDisabled IngestTLSMode = "Disabled"
)

// IngestTLS is how the connections of producers are secured.
//
// +kubebuilder:validation:XValidation:rule="!has(self.certificateSecretRef) || !has(self.mode) || self.mode != 'Disabled'",message="a certificate is of no use while mode is Disabled: remove certificateSecretRef"
type IngestTLS struct {
	// mode is Required for https alone, Optional for http beside it, or Disabled. Without, it is Required, but Optional for a
	// dispatcher that was reached by http before: no producer of it is cut off until mode says so.
	// +optional
	Mode IngestTLSMode `json:"mode,omitempty"`

	// certificateSecretRef names a Secret of type kubernetes.io/tls in the dispatcher's namespace, such as one of cert-manager's.
	// Its ca.crt, if it has one, is what producers are told to trust. A renewed one is served without a restart. Without, the
	// manager makes a certificate and renews it.
	// +optional
	CertificateSecretRef *SecretReference `json:"certificateSecretRef,omitempty"`
}

// ClientCA names the authorities of producers' certificates, in PEM. A change of what it holds takes effect within minutes.
//
// +kubebuilder:validation:ExactlyOneOf=configMapKeyRef;secretKeyRef
type ClientCA struct {
	// configMapKeyRef names a key of a ConfigMap in the dispatcher's namespace.
	// +optional
	ConfigMapKeyRef *ConfigMapKeyReference `json:"configMapKeyRef,omitempty"`

	// secretKeyRef names a key of a Secret in the dispatcher's namespace.
	// +optional
	SecretKeyRef *SecretKeyReference `json:"secretKeyRef,omitempty"`
}

// AuditLevel is how much is recorded. Each level has what those before it have.
// +kubebuilder:validation:Enum=None;Writes;Reads;All
type AuditLevel string

// The levels of the audit trail.
const (
	// AuditNone records nothing.
	AuditNone AuditLevel = "None"
	// AuditWrites records replays, cancellations and sending now.
	AuditWrites AuditLevel = "Writes"
	// AuditReads records lists, watches and reading a delivery as well.
	AuditReads AuditLevel = "Reads"
	// AuditAll records publishing as well.
	AuditAll AuditLevel = "All"
)

// Audit is who of those that use a dispatcher is recorded.
type Audit struct {
	// level is None, Writes for replays and cancellations, Reads for who listed and read deliveries as well, or All for who
	// published, too. Without, it is Reads.
	// +optional
	Level AuditLevel `json:"level,omitempty"`
}

// DeliveriesAPI is whether a dispatcher's deliveries are served as Kubernetes resources.
type DeliveriesAPI struct {
	// enabled asks the manager to register the API with the cluster, once it answers. The manager must run with
	// --deliveries-api. Of several dispatchers that ask, the oldest serves.
	// +optional
	// +kubebuilder:default=false
	Enabled *bool `json:"enabled,omitempty"`
}

// Egress is what deliveries may reach. Public addresses are allowed, private and special ones (RFC 6890) are not; ports 80,
// 443 and from 1024 on are allowed.
type Egress struct {
	// allowHTTP allows endpoints without TLS.
	// +optional
	// +kubebuilder:default=false
	AllowHTTP *bool `json:"allowHTTP,omitempty"`

	// minTLSVersion is the least version of TLS that endpoints must speak: VersionTLS12, which holds without, or VersionTLS13.
	// A subscription can ask for more.
	// +optional
	MinTLSVersion TLSVersion `json:"minTLSVersion,omitempty"`

	// rules let the deliveries of some namespaces reach address ranges that are private or special, or bind them to some hosts.
	// All rules that select a namespace hold for it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Rules []EgressRule `json:"rules,omitempty"`

	// approval is Required if the hosts that deliveries go to have to be approved: a subscription to one that no WebhookDestination
	// names for its namespace is not accepted. Without, or with None, no host has to be. A Service that spec.serviceRef names
	// needs no approval.
	// +optional
	Approval Approval `json:"approval,omitempty"`

	// proxy is what all connections to endpoints, for tokens and for lookups go through, but for those to a Service that
	// spec.serviceRef names. A change replaces the pods.
	// +optional
	Proxy EgressProxy `json:"proxy,omitzero"`

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

// Approval is whether hosts have to be approved.
// +kubebuilder:validation:Enum=None;Required
type Approval string

// The approvals.
const (
	// ApprovalNone lets deliveries go to hosts that nobody approved.
	ApprovalNone Approval = "None"
	// ApprovalRequired does not.
	ApprovalRequired Approval = "Required"
)

// EgressRule lets the deliveries of some namespaces reach address ranges, and says which hosts they may go to.
//
// +kubebuilder:validation:XValidation:rule="has(self.cidrs) || has(self.hosts)",message="at least one of cidrs and hosts must be set"
// +kubebuilder:validation:XValidation:rule="has(self.cidrs) || !has(self.ports)",message="ports are those of cidrs: name these, too"
type EgressRule struct {
	// namespaceSelector selects namespaces by label; the empty selector selects all.
	// +required
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// hosts that the namespaces may deliver to, such as hooks.example.com, or *.example.com for all below it. A namespace that a
	// rule with hosts selects may go to the hosts of all rules that select it, and to no others, also for lookups and tokens. If
	// the rule has cidrs, it opens them for these hosts alone. A Service that spec.serviceRef names needs no rule.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a DNS name such as hooks.example.com, or *.example.com for all below it"
	Hosts []string `json:"hosts,omitempty"`

	// cidrs are the address ranges, such as 10.96.0.10/32.
	// +optional
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

	// scheduledDeliveries are those of pendingDeliveries that wait for the time that a schedule gave them; events that would
	// plan more are answered with 429.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	ScheduledDeliveries int64 `json:"scheduledDeliveries,omitempty"`

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
