// Package trigger is the command "eventflow trigger": it publishes a sample event into a running system, and follows the
// deliveries that it causes.
//
//	sample ─► publish ─► list the event's deliveries ─► ask for each until it has ended
//
// It uses the API that producers use, with the rights of the user: docs/publishing.md. Where the dispatcher is, --server says, or
// the status of the WebhookDispatcher.
package trigger
