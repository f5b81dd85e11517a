// Package console is "eventflow console", the Webhooks panel: server-rendered pages over the Kubernetes API and deliveries.
//
//	browser ─► web (guards, routes) ─► view (pages)
//	                │
//	                ├─► kube, folder   subscriptions, dispatchers
//	                └─► deliveries     a dispatcher
//
// It has no rights and no passwords of its own. On a person's machine it acts with the kubeconfig, listens on loopback alone, and
// lets in only who opened the address that it printed. In a cluster it passes on the bearer token of each request.
package console
