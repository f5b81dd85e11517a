package doctor

import (
	"fmt"
	"slices"
)

// enforceLabel is what the namespace's pods must keep to (Pod Security Admission).
const enforceLabel = "pod-security.kubernetes.io/enforce"

// findPodSecurity says of the namespaces that dispatchers and managers run in whether their pods are held to the standard that
// they keep to.
func findPodSecurity(in *Installation) []Finding {
	homes := []string{}
	for i := range in.Dispatchers {
		homes = append(homes, in.Dispatchers[i].Namespace)
	}
	for i := range in.Deployments {
		homes = append(homes, in.Deployments[i].Namespace)
	}
	slices.Sort(homes)
	var all []Finding
	for _, name := range slices.Compact(homes) {
		ns := in.namespace(name)
		if ns == nil || ns.Labels[enforceLabel] == "restricted" {
			continue
		}
		is := "nothing"
		if level := ns.Labels[enforceLabel]; level != "" {
			is = "the standard " + level
		}
		all = append(all, Finding{
			Level: Note, Object: object("Namespace", "", name), Problem: "its pods are held to " + is,
			Why:  "those of Event Flow keep to the standard restricted, and so may all beside them",
			Mend: fmt.Sprintf("kubectl label namespace %s %s=restricted --dry-run=server", name, enforceLabel),
		})
	}
	return all
}
