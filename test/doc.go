// Package test holds the product's promises to account: the real binary, as a manager and as dispatchers, against a real
// API server and real receivers. Everything it asks, it asks as a user would: with kubectl, over HTTP, and by what
// arrives.
package test
