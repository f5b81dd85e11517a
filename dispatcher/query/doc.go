// Package query answers questions about deliveries, and changes them on request: list, get, replay, cancel, send now. It
// knows no transport. The HTTP API, the Kubernetes API and the console ask it, so each answers the same.
//
// What becomes pending again goes to the engine in the same call that made it durable. No caller can forget that.
//
// Every request names one tenant, and sees nothing of others: a delivery of another tenant is not found, and a continue
// token of another tenant is not valid.
package query
