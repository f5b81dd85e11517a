// Package virtual runs dispatchers on a clock that a test sets: ingest, store, engine, payload and egress, put together
// in one process, deliver the automations of config/samples to fakes of their providers. Days pass at once, and each
// delivery goes at its very time.
//
// A kill is a store that is opened again on what its file system had synced. On PostgreSQL, two dispatchers share a
// database, and one of them leaves, in order or without a word.
package virtual
