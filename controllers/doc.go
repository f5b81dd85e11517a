// Package controllers is the control plane: a manager that turns WebhookSubscriptions into routing tables, and
// WebhookDispatchers into the workloads that deliver by them. It never touches an event.
//
//	WebhookSubscription ┐
//	Secrets it names    ├─► subscription ─► routes ─► Secrets (one index, 64 or 256 shards) ─► dispatcher pods
//	WebhookDispatcher   ┘        │
//	        │                    └─► status: Accepted, Ready
//	        └─► dispatcher ─► Deployment, Service, ServiceAccount, Role, PersistentVolumeClaim, PodDisruptionBudget
//
// Each controller is a package of its own; names holds how what they make is named and labelled, and status how they
// write status. One replica works at a time; another one takes over from the same objects, with nothing to hand over.
//
// While the manager is unavailable, dispatchers go on by the last table; when the API server is unavailable, everything waits and is
// done again with backoff.
package controllers
