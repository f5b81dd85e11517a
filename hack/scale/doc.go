// Scale measures the control plane as an installation has it: a real etcd and API server, the manager and a dispatcher as
// processes of their own, each with no more rights than its ServiceAccount has. The API server's audit log says who
// wrote and read what; the kernel says what each process used. It prints a table, writes JSON, and stops what it started.
//
//	go run ./hack/scale                                          # 1,000 subscriptions in 10 namespaces
//	go run ./hack/scale -subscriptions=10000 -namespaces=100
//	go run ./hack/scale -subscriptions=100000 -namespaces=1000 -token-bytes=1000 -rows=apply,change,news,restart,idle,table
//
// Rows, in the order in which they run; each has a bound in time:
//
//   - bare: what creating the same objects costs the API server while nothing watches them but this program.
//   - apply: all at once, until each is Ready. The goal is the ratio of the API server's CPU to that of bare.
//   - change: one spec is changed; what anybody but the author writes until it is Ready again.
//   - restart: manager and dispatcher, one after the other, with nothing changed: writes, and requests.
//   - news: a subscription is created 2 s after a restart of either; seconds until it is Ready.
//   - rotate: the one Secret of 500 subscriptions is rotated: seconds until the routing table has it, and reads of the Secret.
//   - flap: 1,000 endpoints change between health and failure each second: status writes a second.
//   - counts: each subscription gets a second delivery: seconds until the counts are right.
//   - idle: writes while nothing happens.
//   - table: how large the routing table is, and how many bytes were written for it.
package main
