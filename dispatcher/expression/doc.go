// Package expression compiles and evaluates the CEL expressions of a subscription: its filter, the expressions of its
// schedule, its lookup's URL, its transform and its outcome.
//
// A Use names where an expression stands, and with that its variables and the type of its result. Compile checks an
// expression against its Use and returns a Program, or an *InvalidError that says where the text is wrong. A Program is
// immutable: any number of goroutines may evaluate it at once. Evaluation reaches nothing outside its Variables: no
// clock, no network, no randomness.
//
// # Null
//
// A field that an object does not have, an element that a list does not have, and a field of null all read as null. A
// comparison with null is an ordinary one: null == null is true, null == 5 is false, null != 5 is true. "in" is false if
// the list or the map on its right is null. has() reports whether the key is there, also if its value is null. Every
// other use of a value that does not fit (null > 5, a method of null, a field of a text) is an *Error with one of a few
// Reasons; its message names types and positions, and never a value. CEL's own rule for && and || holds: an error on one
// side does not matter if the other side decides. docs/filters.md shows the whole table, which a test generates.
//
// This is done where the interpreter resolves names (attribute.go), not by rewriting the expression: so has(), the
// optional syntax and the macros keep their meaning.
//
// # JSON
//
// A Document is JSON that is parsed when an expression first reads it, once for all expressions. A number without a
// fraction and an exponent that fits into 64 bits is an int, every other number a double: so an integer beyond 64 bits
// loses digits. The last of duplicate keys counts. Objects keep the order of their keys.
//
// # Cost
//
// Each evaluation has a budget of CostLimit units: about one a step, and one for each 16 bytes of text that a function
// reads or builds. A function whose result may be larger than its arguments is charged before it works. There is no
// estimate at compile time: it would have to assume the worst of every list, and refuse ordinary rules.
package expression
