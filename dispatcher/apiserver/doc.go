// Package apiserver serves deliveries as Kubernetes resources, over package query: an aggregated API that kube-apiserver
// passes requests on to. Nothing of it is stored in etcd or cached there.
//
//	GET  …/namespaces/{ns}/webhookdeliveries                       list, and watch with ?watch=true
//	GET  …/namespaces/{ns}/webhookdeliveries/{id}                  one, with its attempts
//	POST …/namespaces/{ns}/webhookdeliveries/{id}/replay           and /cancel, /sendnow
//	GET  …/namespaces/{ns}/webhookevents                           list, and one by its id
//	GET  …/namespaces/{ns}/webhookevents/{id}/payload              what the producer published
//
// Discovery is static: it is answered without the store, without authentication and without authorization, because an
// aggregated API whose discovery fails blocks the deletion of every namespace. There is no verb delete.
//
// The caller is kube-apiserver's front proxy, by its client certificate; who asks stands in the headers that it sets. Each
// request is authorized by itself, in one namespace, and sees one tenant.
//
// It is written over apimachinery and not over k8s.io/apiserver: see docs/adr/0013-the-deliveries-api-is-small.md.
package apiserver
