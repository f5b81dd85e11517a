// Run is make run: it starts all of Event Flow on this machine, publishes an event of each automation in config/samples,
// and shows what arrives. It needs Go and git, and no cluster, container or registry.
//
//	etcd, kube-apiserver ─► manager, dispatcher (this checkout, as their ServiceAccounts) ─► demo receiver
//
// No kubelet runs in this control plane, so the dispatcher's Deployment gets no pods: run starts the process that a pod
// would be, with the arguments that the manager wrote into the Deployment.
package main
