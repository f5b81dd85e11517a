// Package announce makes Kubernetes Events, and lines in the manager's log, of what changes in the conditions of
// WebhookSubscriptions and WebhookDispatchers: what broke, what to do, and that it works again.
//
// What to say is decided by pure functions of an object before and after a change. The same is not said of one object again
// within ten minutes, and all objects share a rate, so that thousands of endpoints that fail together do not flood the API
// server. An Event shows what a condition shows: no path of a URL, no value of a Secret, and nothing of a payload.
package announce
