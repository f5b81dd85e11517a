// Package fair gives the namespaces whose objects a controller reconciles their turns: one object of each in turn, however
// many any of them has queued. A tenant with thousands of subscriptions makes another wait for one of them, not for all.
//
// Within a namespace it is first come, first served. What the API server lists when a manager starts, and nobody changed,
// comes behind what was changed since, but is not left for good.
package fair
