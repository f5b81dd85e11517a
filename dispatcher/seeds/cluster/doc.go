// Package cluster keeps tenants' seeds in Secrets of the dispatcher's namespace. The manager makes the Secrets, empty, and
// owns nothing in their data; the dispatcher may get and patch them by their names, and no other.
//
// There are 16 for a dispatcher, and a tenant is in one of them by a hash of its uid. A Secret for each tenant would need the
// right to create Secrets of any name, and to read what it did not make. What a Secret may hold, 1 MiB, is enough for some
// 3,000 tenants, so that a dispatcher can have 50,000.
//
// Get answers from the copy that was read last, where that has the tenant: a seed never changes, but for what it is wrapped
// with. List reads all Secrets anew. Writers go by the resource version, so that of several one wins.
package cluster
