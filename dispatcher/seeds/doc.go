// Package seeds keeps a secret seed for each tenant, outside the store, its volume and its backups. To delete a tenant's
// seed is to make all that was stored of the tenant unreadable, wherever copies of it are.
//
//	Cache ──► Keeper: Folder, or cluster.Keeper in Secrets
//	  └─────► envelope.KeyRing, whose current key wraps each seed
//
// Cache answers for a known tenant without a lock and without a call. For another it asks the Keeper once, however many
// ask for the tenant at the same time. The first event of a tenant makes its seed: the Keeper creates what is not there, so
// that of several dispatchers one wins, and the others take what it made.
//
// What cannot be had is not made up: while the Keeper is unavailable, a tenant that this process has not met gets
// store.ErrNoKeys, and known ones go on.
package seeds
