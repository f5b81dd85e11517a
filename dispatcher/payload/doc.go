// Package payload is the step between the engine and egress: it makes, of an event and a subscription's recipe, the
// request that the endpoint expects, and reads from the answer what became of it.
//
//	engine ─► recheck ─► lookup ─► redact ─► body ─► egress ─► outcome ─► engine
//	           │           │         │        │ full, thin, CloudEvents or a transform
//	        Cancelled      └─────────┴────────┴─► a failed attempt; nothing is sent
//
// A subscription without a recipe passes straight through: its events are sent as they are stored, with nothing copied.
//
// All of it happens at the attempt, so that mending a subscription mends the deliveries that wait. What fails before the
// request is a failed attempt, which is retried. Nothing is ever sent raw, or in part, because making it failed: an error
// means silence. Only recheck and outcome err towards delivery, as filters do.
//
// recheck and lookup read the event as it was published. What is sent is made of what redaction leaves of it: a value
// that a path of spec.payload.redact names is in no body, header or URL of a delivery. event.previous is null here.
//
// # Memory
//
// Parsing an event or a document holds up to 75 bytes for each of its own, so expressions are evaluated in places: one
// for each processor but one, for which tenants take turns. What an evaluation may hold is charged to its tenant before
// it begins, and given back with the place. Results, a document that was looked up and an answer are charged until
// nothing reads them any more. A charge that finds no memory waits; the attempt's timeout bounds that.
//
// The messages of errors name types, places and headers. They show nothing of an event, and may stand in a condition.
package payload
