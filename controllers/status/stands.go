package status

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Stands reports whether existing holds each of the wanted conditions as it is, and none of the other types that the
// writer owns.
func Stands(existing, wanted []metav1.Condition, owned ...string) bool {
	for i := range existing {
		kind := existing[i].Type
		is := func(c metav1.Condition) bool { return c.Type == kind }
		if slices.Contains(owned, kind) && !slices.ContainsFunc(wanted, is) {
			return false
		}
	}
	return Contains(existing, wanted)
}
