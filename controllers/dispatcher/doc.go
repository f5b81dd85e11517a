// Package dispatcher reconciles a WebhookDispatcher into what runs it: Deployment, Service, ServiceAccount, Role and
// its binding, PersistentVolumeClaim, PodDisruptionBudget, and bindings to the ClusterRoles that config/ ships. With a
// database in place of a volume there is no claim, and the pods roll when a Secret of the connection changes.
//
// Everything is written by server-side apply with forced ownership and watched, so that a field which someone changes
// is set back. What others add beside (annotations of a rollout, labels of a service mesh) stays.
//
// Kubernetes collects what a deleted dispatcher owned, with two exceptions. The claim has no owner: its events outlive
// a mistaken delete, and a dispatcher of the same name takes it up again. Cluster-wide bindings cannot have an owner in
// a namespace, so they are swept by label.
package dispatcher
