package status

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// generation is what the status says of a route's generation, 0 for nothing.
func (w *Writer) generation(route *routing.Route) int64 {
	if w.byRevision {
		return 0
	}
	return programmed(route)
}

// says reports whether what stands needs no write for what is wanted.
func (w *Writer) says(stands, wanted shown) bool {
	if !w.byRevision {
		return wanted.same(stands)
	}
	if stands.nothing || stands.rest == wanted.rest {
		return (!stands.nothing || wanted.plain) && w.sameConditions(wanted.conditions, stands.conditions)
	}
	return false
}

// saysOf reports whether what stands holds but for the counts.
func (w *Writer) saysOf(route *routing.Route, counts delivery.Counts, stands shown) bool {
	return (w.byRevision || programmed(route) == stands.programmed) && w.sameConditions(w.conditions(route, counts), stands.conditions)
}

// sameConditions compares all but the transition times. By revision, a condition that does not stand holds if it is the one that
// is assumed. One that stands may be about an earlier generation unless it is False: it says so itself, and a change of a spec
// costs no write for it.
func (w *Writer) sameConditions(wanted, stand []metav1.Condition) bool {
	if !w.byRevision && len(wanted) != len(stand) {
		return false
	}
	for i := range stand {
		if !slices.ContainsFunc(wanted, func(c metav1.Condition) bool { return c.Type == stand[i].Type }) {
			return false
		}
	}
	for i := range wanted {
		at := slices.IndexFunc(stand, func(c metav1.Condition) bool { return c.Type == wanted[i].Type })
		if at < 0 {
			if !w.byRevision || !isAssumed(&wanted[i]) {
				return false
			}
			continue
		}
		x, y := wanted[i], stand[at]
		if w.byRevision && x.Status != metav1.ConditionFalse {
			y.ObservedGeneration = x.ObservedGeneration
		}
		y.LastTransitionTime = x.LastTransitionTime
		if x != y {
			return false
		}
	}
	return true
}
