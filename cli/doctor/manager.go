package doctor

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
)

// componentLabel says whether a Deployment is the manager's or a dispatcher's.
const componentLabel = "app.kubernetes.io/component"

// findManager looks for a manager that runs.
func findManager(in *Installation) []Finding {
	if in.Unread["deployments"] != "" {
		return nil
	}
	var manager *appsv1.Deployment
	for i := range in.Deployments {
		if in.Deployments[i].Labels[componentLabel] == "manager" || in.Deployments[i].Name == "eventflow-manager" {
			manager = &in.Deployments[i]
		}
	}
	if manager == nil {
		return []Finding{{
			Level: Failed, Problem: "there is no manager: changes of resources take no effect",
			Mend: "kubectl apply -k config/default    # or helm install",
		}}
	}
	named := object("Deployment", manager.Namespace, manager.Name)
	if manager.Status.ReadyReplicas > 0 {
		return nil
	}
	level := Waiting
	if manager.Spec.Replicas != nil && *manager.Spec.Replicas == 0 {
		level = Failed
	}
	return []Finding{{
		Level: level, Object: named, Problem: "no manager is ready: changes of resources take no effect",
		Why:  fmt.Sprintf("%d of its pods are there, none of them ready", manager.Status.Replicas),
		Mend: fmt.Sprintf("kubectl -n %s describe pods -l %s=manager", manager.Namespace, componentLabel),
	}}
}

// definitions are the resources that the installation needs, and the version that this program knows.
var definitions = []string{"webhookdestinations.webhooks.clinikapi.com", "webhookdispatchers.webhooks.clinikapi.com", "webhookreplays.webhooks.clinikapi.com", "webhooksubscriptions.webhooks.clinikapi.com"}

// findDefinitions looks for the resource definitions.
func findDefinitions(in *Installation) []Finding {
	if in.Unread["customresourcedefinitions"] != "" {
		return nil
	}
	var all []Finding
	for _, name := range definitions {
		found, ok := in.Definitions[name]
		named := object("CustomResourceDefinition", "", name)
		switch {
		case !ok:
			all = append(all, Finding{Level: Failed, Object: named, Problem: "it is not installed", Mend: "kubectl apply -k config/crd"})
		case !found.Established:
			all = append(all, Finding{Level: Waiting, Object: named, Problem: "the API server does not serve it yet", Mend: "kubectl describe crd " + name})
		}
	}
	return all
}
