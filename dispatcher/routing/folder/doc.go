// Package folder is the source of a routing table that needs no cluster: a folder of manifests, the same that kubectl
// apply takes.
//
//	scan ──► files that changed and are settled ──► parse ──► compile ──► routing.Table
//
// Every *.yaml, *.yml and *.json file in the folder itself is read, each with any number of documents; symbolic links
// are followed, as a mounted ConfigMap needs; files whose name starts with a dot, and subfolders, are not read.
// WebhookSubscriptions, Secrets and ConfigMaps are used, lists of them too, and of Namespaces the uid, which is the tenant.
// Other resources are left to those they concern.
// dispatcherRef is not looked at: whoever writes into the folder means this dispatcher.
//
// A file is taken once it has stayed as it is for a moment, and a file that disappeared is given up likewise: one that
// is just being written must not look like the deletion of what it does not hold yet. What cannot be used is reported,
// in the log and in the table's Problems: each document stands for itself, and what a bad one declared before stays until its
// file parses as a whole (a file that never did marks the table as one that may lack subscriptions); a subscription that
// is not accepted goes on matching by its last valid spec, across restarts too if a routing.LastGood is given; a folder
// that cannot be read keeps the last table.
package folder
