// Package settings is the part of a WebhookDispatcher's spec that takes effect while its pods run, as a document: the
// manager writes it into a Secret, and the dispatcher follows that Secret and keeps the last good document on disk.
//
//	spec ─► Encode ─► Secret ─► Source ─► Settings
//	                              └─► LastGood, for a start without the API server
//
// What the spec says of single tenants (rules of egress, overrides of quotas) is in the routing table. What takes effect
// with a restart alone is in the container's arguments.
//
// The document is versioned. A dispatcher ignores a field that it does not know, so that an older one goes on beside a
// newer manager; a field that must not be ignored comes with a new format, which an older dispatcher refuses as a whole.
package settings
