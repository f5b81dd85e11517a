// Package kube makes the dispatcher's requests to the Kubernetes API server, for the kinds that it uses and no other. It stands
// in place of client-go's clientset. That one links a client, types and apply configurations for every group of Kubernetes: 240
// packages, and a third of the time in which a dispatcher is built for the first time. Each method is one request, with the
// paths, the encoding and the errors that the clientset's method of the same name has.
package kube
