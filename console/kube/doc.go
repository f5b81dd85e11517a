// Package kube is the cluster as one user sees it. A Client is made for each request, of that request's credentials; two
// users never share one. Errors of rights name the verb and the resource that are missing.
//
// A list of 10,000 subscriptions takes the API server a second, and each page of it would ask again. So Lists keeps, for each
// user and namespace, the rows of the last list for some seconds. A row holds what a table shows, and no more. Its key has a hash
// of the credentials in it, so that no user sees what another one was allowed to list.
package kube
