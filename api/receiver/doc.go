// Package receiver is the consumer's side of Event Flow: it verifies deliveries, deduplicates them, and calls the handler
// of their event type. It depends on the standard library and on this module's small packages alone, so a program that
// receives webhooks takes nothing of Kubernetes with it.
//
//	hooks, err := receiver.New(receiver.Config{
//		Secrets: []string{os.Getenv("WEBHOOK_SECRET")},
//		On: receiver.Routes{
//			"appointment.*": receiver.Typed(func(ctx context.Context, e receiver.Event, a Appointment) error {
//				return remind(ctx, a)
//			}),
//		},
//	})
//	http.Handle("/hooks", hooks)
//
// # A delivery's way
//
// A request takes one of a bounded number of places. Its method, type and size are checked, then its signature, in
// constant time, and only then is its body parsed. The route with the most specific pattern gets the event. Before that
// the delivery's id is claimed in the Deduplicator, and afterwards it is recorded as handled, or released if the handler
// failed. So what failed is tried again, and what succeeded is not repeated.
//
// A Deduplicator that fails never loses a delivery: the handler runs, and may run again for a repetition.
//
// # Answers
//
// The dispatcher retries whatever is not answered with 2xx (docs/wire.md), so the codes differ for people, not for it:
//
//	200 handled, handled before, or of a type that no route is for
//	400 signed, but not an event
//	401 the signature is missing, wrong, malformed or too old
//	405, 408, 413, 415 not a POST, too slow, too large, not JSON or compressed
//	409 the same delivery is being handled at this moment
//	500 the handler failed
//	503 the handler asks to be called later (RetryAfter), or all places are taken
//	410 the handler returned ErrStop: the dispatcher stops the subscription's deliveries
//
// The files receivers/node and receivers/python do the same in two other languages. All three pass the one table in
// testdata/vectors.json.
package receiver
