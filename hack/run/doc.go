// Run is the second part of make run. The first, hack/run/first, has shown an event of each automation in config/samples delivered
// by one program, as "eventflow demo". This shows the same with all of Event Flow, and a control plane. It needs Go and git, and no
// cluster, container or registry.
//
//	hack/run/first ─► hack/run/demo: folder ─► dispatcher ─► receiver
//	etcd, kube-apiserver ─► manager, dispatcher (this checkout, as their ServiceAccounts) ─► eventflow demo receive
//
// No kubelet runs in this control plane, so the dispatcher's Deployment gets no pods: run starts the process that a pod
// would be, with the arguments that the manager wrote into the Deployment.
package main
