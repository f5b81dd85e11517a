// Package budget divides a limited amount of something, such as bytes of memory or places for attempts, among tenants.
//
// The rule is the dynamic threshold of shared-memory switches (Choudhury and Hahne, "Dynamic queue length thresholds for
// shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998): a tenant may hold as much as is free.
// One greedy tenant gets half of the limit, two get a third each, n get 1/(n+1) each, and as much stays free for whoever
// comes next. Nothing is set aside for tenants that want nothing, and no number of tenants needs to be known.
package budget
