// Package test is the command "eventflow test": what subscriptions would do with events, before they run. It reads files and
// reports; package simulate decides.
package test
