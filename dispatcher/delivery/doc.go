// Package delivery has the words for what becomes of an event: the event, its deliveries, their attempts and outcomes,
// and what an engine and a store need of each other. It does nothing; packages store and engine do.
package delivery
