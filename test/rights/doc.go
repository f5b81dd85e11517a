// Package rights finds the rules of roles that nobody uses. A suite starts its API server with an audit log, runs what it
// tests with the rights of its ServiceAccount, and in the end compares the rules with the requests that were allowed.
package rights
