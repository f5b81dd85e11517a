package doctor

import (
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// findSecrets says which Secrets and ConfigMaps are named and not there, or lack the key that is named. It shows no value.
func findSecrets(in *Installation) []Finding {
	var all []Finding
	for i := range in.Dispatchers {
		d := &in.Dispatchers[i]
		for _, ref := range dispatcherSecrets(d) {
			if ref.field != "" {
				all = append(all, missing("Secret", object("WebhookDispatcher", d.Namespace, d.Name)+" "+ref.field, ref.ObjectKey, ref.key, in.Secrets)...)
			}
		}
	}
	for i := range in.Subscriptions {
		sub := &in.Subscriptions[i]
		named := object("WebhookSubscription", sub.Namespace, sub.Name)
		for _, ref := range routing.SecretReferences(sub) {
			all = append(all, missing("Secret", named+" "+ref.Where, client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, ref.Key, in.Secrets)...)
		}
		if ref := sub.Spec.TLS.CAConfigMapRef; ref != nil {
			all = append(all, missing("ConfigMap", named+" spec.tls.caConfigMapRef", client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, ref.Key, in.ConfigMaps)...)
		}
	}
	return all
}

// missing says whether what is named by an object is not there. What could not be read is not known.
func missing(kind, by string, of client.ObjectKey, key string, values map[client.ObjectKey]map[string][]byte) []Finding {
	found, known := values[of]
	if !known {
		return nil
	}
	f := Finding{Level: Waiting, Object: object(kind, of.Namespace, of.Name), Why: "named by " + by}
	switch _, has := found[key]; {
	case found == nil:
		f.Problem, f.Mend = "it does not exist", fmt.Sprintf("kubectl -n %s create secret generic %s --from-file=%s=FILE", of.Namespace, of.Name, key)
		if kind == "ConfigMap" {
			f.Mend = fmt.Sprintf("kubectl -n %s create configmap %s --from-file=%s=FILE", of.Namespace, of.Name, key)
		}
	case key != "" && !has:
		f.Level, f.Problem, f.Mend = Failed, "it has no key "+key, fmt.Sprintf("kubectl -n %s edit %s %s", of.Namespace, lower(kind), of.Name)
	default:
		return nil
	}
	return []Finding{f}
}

func lower(kind string) string {
	if kind == "ConfigMap" {
		return "configmap"
	}
	return "secret"
}

// namedSecrets are all Secrets that objects name, each once, and namedConfigMaps all ConfigMaps.
func (in *Installation) namedSecrets() map[client.ObjectKey]bool {
	all := map[client.ObjectKey]bool{}
	for i := range in.Dispatchers {
		for _, ref := range dispatcherSecrets(&in.Dispatchers[i]) {
			all[ref.ObjectKey] = true
		}
	}
	for i := range in.Subscriptions {
		for _, ref := range routing.SecretReferences(&in.Subscriptions[i]) {
			all[client.ObjectKey{Namespace: in.Subscriptions[i].Namespace, Name: ref.Name}] = true
		}
	}
	return all
}

func (in *Installation) namedConfigMaps() map[client.ObjectKey]bool {
	all := map[client.ObjectKey]bool{}
	for i := range in.Subscriptions {
		if ref := in.Subscriptions[i].Spec.TLS.CAConfigMapRef; ref != nil {
			all[client.ObjectKey{Namespace: in.Subscriptions[i].Namespace, Name: ref.Name}] = true
		}
	}
	return all
}
