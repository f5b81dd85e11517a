// Package event is the vocabulary that producers, both planes and consumers share: the catalog of clinical resources
// and actions, the types and patterns made of them, the identifiers of events and deliveries, and the JSON envelope in
// which an event travels to an endpoint.
//
// The package holds no state and reaches nothing outside itself. Its constants and formats are part of the contract on
// the wire; see docs/wire.md.
package event
