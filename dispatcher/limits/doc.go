// Package limits derives how much of its machine a dispatcher uses for what, so that whatever tenants do it stays within
// nine tenths of its memory limit and within its file descriptors.
//
// # Memory
//
// The limit is that of the cgroup. Of nine tenths of it, what is not Go's (the program's text, the kernel's buffers) gets
// 64 MiB; the rest is GOMEMLIMIT. Three quarters of that may be in use; the last quarter is the collector's, without
// which it would run all the time. What may be in use is divided:
//
//	store        144 MiB: Pebble's cache (48), its memtables (64), one large batch beyond them (32)
//	tables       a tenth of the limit: routing table, clients of Kubernetes, the filter of ids
//	budget       half of the rest: bodies of publishes and of waiting deliveries, what stores hold beside them
//	attempts     three tenths of the rest: 24 KiB each in flight (TLS, goroutine, buffers; the body is the budget's), 16 KiB each idle connection
//	connections  a fifth of the rest: 64 KiB for each of a publisher (TLS, goroutine, buffers, a full header, read and parsed)
//
// In MiB, and numbers of attempts, idle connections and publishers' connections:
//
//	limit  GOMEMLIMIT  budget  attempts  idle  connections
//	  512         396      64      1123   280          327
//	 1024         857     198      4353  1088         1269
//	 4096        3622    1081     23733  5933         6922
//
// There are never fewer than 64 attempts. The budget is never less than 64 MiB, which publishing needs for one request
// of the greatest size; below 512 MiB that comes out of the collector's quarter. Without a limit the shares are those
// of 1 GiB, the limit that the manager gives dispatchers, and GOMEMLIMIT is not set. An explicit GOMEMLIMIT is kept,
// and the shares follow it if it is the lower.
//
// # File descriptors
//
// An eighth, at most 128, is set aside for health, metrics, the log, DNS, and clients of Kubernetes and of databases.
// A quarter of what is left, at most 600, is the store's. The rest is divided: attempts and publishers' connections two
// fifths each, idle connections one fifth.
package limits
