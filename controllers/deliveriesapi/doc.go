// Package deliveriesapi registers the deliveries API of one dispatcher with the cluster, and takes it back.
//
// An APIService whose pods do not answer harms the whole cluster: no namespace can be deleted, and discovery is slow. So the
// manager registers it only once the API server reached the pods and they serve the manager's certificate (preflight in
// probe.go). It looks every few seconds from then on, and takes the APIService back once the pods were out of reach for 30 s, or
// nobody asks for it any more. Once they answer again, it comes back by itself; each time it had to be taken back, later.
//
// The APIService has an owner, the ClusterRoleBinding that config/components/deliveries-api installs: the garbage collector
// removes it with the rights, also if no manager runs.
//
// One dispatcher serves: the oldest that asks for it. What to do follows from what was seen (judge.go) and from whom the API is
// (choose.go); both are pure. The pods' side, the Service and the certificate, is package dispatcher's.
package deliveriesapi
