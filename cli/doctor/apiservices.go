package doctor

import "strings"

// deliveriesGroup is that of the deliveries API.
const deliveriesGroup = "deliveries.webhooks.clinikapi.com"

// findAPIServices looks for APIs that the cluster serves by a Service that does not answer: no namespace can be deleted then,
// whosever the API is. Event Flow's own counts as failed, another's is a warning.
func findAPIServices(in *Installation) []Finding {
	var all []Finding
	for _, a := range in.APIServices {
		if a.Available || a.Service == "" {
			continue
		}
		f := Finding{
			Level: Warning, Object: object("APIService", "", a.Name), Problem: "the API does not answer: " + a.Reason,
			Why:  a.Message + ". While it does not, no namespace of the cluster can be deleted",
			Mend: "kubectl describe apiservice " + a.Name,
		}
		if strings.HasSuffix(a.Name, "."+deliveriesGroup) {
			f.Level, f.Mend = Failed, "kubectl delete apiservice "+a.Name+"    # until the dispatcher behind Service "+a.Service+" answers"
		}
		all = append(all, f)
	}
	return all
}
