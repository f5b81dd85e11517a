package doctor

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// findVersions compares the versions that run with each other and with this program's. What is no release is not compared.
func findVersions(in *Installation) []Finding {
	var all []Finding
	own := release(in.Version)
	for i := range in.Dispatchers {
		d := &in.Dispatchers[i]
		runs := release(d.Status.Version)
		if own == nil || runs == nil {
			continue
		}
		if own.Major() != runs.Major() || distance(own.Minor(), runs.Minor()) > 1 {
			all = append(all, Finding{
				Level: Warning, Object: object("WebhookDispatcher", d.Namespace, d.Name),
				Problem: "it runs version " + d.Status.Version + ", and this program is " + in.Version,
				Why:     "more than one minor version apart, this program may not know what it sees",
				Mend:    "use the program of version " + d.Status.Version,
			})
		}
	}
	return append(all, skewed(in.Dispatchers)...)
}

// skewed names dispatchers that run an older version than another one, which the manager may have left behind.
func skewed(dispatchers []v1alpha1.WebhookDispatcher) (all []Finding) {
	var newest *version.Version
	for i := range dispatchers {
		if v := release(dispatchers[i].Status.Version); v != nil && (newest == nil || newest.LessThan(v)) {
			newest = v
		}
	}
	for i := range dispatchers {
		d := &dispatchers[i]
		if v := release(d.Status.Version); v != nil && v.LessThan(newest) {
			all = append(all, Finding{
				Level: Warning, Object: object("WebhookDispatcher", d.Namespace, d.Name),
				Problem: "it runs version " + d.Status.Version + ", and another dispatcher " + newest.String(),
				Mend:    "kubectl -n " + d.Namespace + " rollout status deployment/eventflow-dispatcher-" + d.Name,
			})
		}
	}
	return all
}

// release is a version such as 1.2.3; nil for a build of a commit, or nothing.
func release(text string) *version.Version {
	v, err := version.ParseSemantic(strings.TrimPrefix(text, "v"))
	if err != nil || v.PreRelease() != "" {
		return nil
	}
	return v
}

func distance(a, b uint) uint { return max(a, b) - min(a, b) }
