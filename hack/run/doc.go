// Run is make run: it shows an event of each automation in config/samples delivered, twice. First the binary alone does
// it, as "eventflow demo". Then it is all of Event Flow, with a control plane. It needs Go and git, and no cluster,
// container or registry.
//
//	eventflow demo: folder ─► dispatcher ─► receiver
//	etcd, kube-apiserver ─► manager, dispatcher (this checkout, as their ServiceAccounts) ─► eventflow demo receive
//
// No kubelet runs in this control plane, so the dispatcher's Deployment gets no pods: run starts the process that a pod
// would be, with the arguments that the manager wrote into the Deployment.
package main
