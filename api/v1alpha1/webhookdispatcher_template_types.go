package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

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
	// +kubebuilder:validation:XValidation:rule="self.all(v, !(v.name in ['store', 'state', 'database-ca', 'ingest-certificate', 'ingest-client-ca']))",message="must not have the name of one of the dispatcher's own volumes: store, state, database-ca, ingest-certificate, ingest-client-ca"
	Volumes []TemplateVolume `json:"volumes,omitempty"`

	// volumeMounts are added to the dispatcher's container.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(m, !(m.name in ['store', 'state', 'database-ca', 'ingest-certificate', 'ingest-client-ca']) && m.mountPath != '/' && !['/data', '/state', '/etc/eventflow/database-ca', '/etc/eventflow/ingest', '/etc/eventflow/client-ca', '/var/run/secrets/kubernetes.io'].exists(p, m.mountPath == p || m.mountPath.startsWith(p + '/')))",message="must not lie on or mount one of the dispatcher's own volumes: store, state, database-ca, ingest-certificate, ingest-client-ca, and /, /data, /state, /etc/eventflow/database-ca, /etc/eventflow/ingest, /etc/eventflow/client-ca, /var/run/secrets/kubernetes.io"
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
