// Package replay reconciles WebhookReplays: it selects the subscriptions that one is about, adds up what their dispatchers say, and
// deletes what is finished for long enough.
//
// The manager sees no delivery, and has no right to. What it selected stands in status.subscriptions, each with its dispatcher, and
// does not change. Each dispatcher does the part of it that is its own: see package dispatcher/replay. All conditions are decided by
// one pure function of the status and of the dispatchers that are there.
//
// What Argo CD or Flux applied is not deleted, whatever its TTL says: they would make it again, and it would run again.
package replay
