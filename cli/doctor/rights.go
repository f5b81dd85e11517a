package doctor

import (
	"maps"
	"slices"
)

// findRights says what could not be looked at: the checks of it found nothing because they saw nothing.
func findRights(in *Installation) []Finding {
	var all []Finding
	for _, resource := range slices.Sorted(maps.Keys(in.Unread)) {
		all = append(all, Finding{
			Level: Note, Problem: "what is known of " + resource + " could not be looked at", Why: in.Unread[resource],
			Mend: "kubectl auth can-i list " + resource + " -A    # ask an administrator, or run doctor as one",
		})
	}
	return all
}
