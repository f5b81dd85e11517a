// Package plan decides when a scheduled delivery is due, and what becomes of the one that the same key has planned. Its
// functions are pure: they take times and values, among them the current time, and reach nothing else.
//
// # When
//
// Decide starts from the time that spec.schedule.at results in. If the schedule has a window, the time moves into it:
// Later to the first time in the window that is not before, Earlier to the last that is not after, Skip not at all. If
// the result is before now, ifPast decides: Skip, or Deliver at the first time from now on that the window allows. What
// is more than MaxAhead from now is not planned.
//
// # Windows
//
// A window is from one local time to another, both included, on each of its days. If it ends at or before the time at
// which it begins, it ends on the next day, and it belongs to the day on which it begins. A local time that a change of
// the clocks skips means the first instant after it; one that comes twice means the first. So a window may be shorter
// or longer on that day than on others, and a window that is skipped whole shrinks to one instant.
//
// # Keys
//
// A subscription has at most one planned delivery of each key. Resolve decides what an event does to it: a later event
// replaces it, also if that event itself is not planned, because its time is past: the appointment has moved. An event
// whose timestamp is older than that of the key's latest event does nothing, whatever became of the latest: events may
// arrive in any order. Cancel decides the same for an event of cancelOn. An event that does both cancels.
package plan
