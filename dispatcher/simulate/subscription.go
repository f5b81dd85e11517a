package simulate

import (
	"fmt"
	"maps"
	"slices"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// A Subscription is one to be tried, and where it takes its values from.
type Subscription struct {
	// Object has a name and a namespace. It is not changed.
	Object *v1alpha1.WebhookSubscription
	// Sources may lack what the subscription names, or be empty.
	Sources routing.Sources
	// File is shown in the report.
	File string
}

// subscription is a Subscription, compiled.
type subscription struct {
	object    *v1alpha1.WebhookSubscription
	report    SubscriptionReport
	entry     *routing.Entry // nil if it is not accepted
	route     *routing.Route
	masks     masks
	lookup    masks
	urlSecret string // where the URL comes from, if that is a Secret
}

// compile compiles a subscription as the manager does. What it names and Sources lack is replaced by placeholders; the
// warnings say so.
func (s *Subscription) compile(policy routing.Policy) (_ *subscription, warnings []string, err error) {
	object := s.Object.DeepCopy()
	sources, warnings, err := withPlaceholders(object, s.Sources)
	if err != nil {
		return nil, nil, err
	}
	c := &subscription{object: object, report: SubscriptionReport{Name: object.Name, File: s.File}}
	entry, rejection, err := routing.Compile(object, sources, policy)
	if err != nil {
		return nil, nil, err
	}
	if rejection != nil {
		c.report.Reason, c.report.Message = rejection.Reason, rejection.Message
		return c, warnings, nil
	}
	if c.route, err = entry.Route(); err != nil {
		return nil, nil, err
	}
	c.entry, c.report.Accepted, c.report.Suspended = entry, true, entry.Suspended
	c.mask()
	return c, warnings, nil
}

// The placeholders of what a Secret would hold.
const (
	placeholderKey        = "placeholder-placeholder-placeholder"
	placeholderURL        = "https://placeholder.invalid/"
	placeholderCredential = "placeholder"
)

// withPlaceholders adds to sources what the subscription names and they lack. Certificates have no placeholder: the
// subscription goes without them, as no connection is made.
func withPlaceholders(object *v1alpha1.WebhookSubscription, from routing.Sources) (routing.Sources, []string, error) {
	var warnings []string
	added := map[string]map[string][]byte{}
	for _, ref := range routing.SecretReferences(object) {
		if has, err := hasKey(from.Secrets, ref.Name, ref.Key); err != nil || has {
			if err != nil {
				return from, nil, fmt.Errorf("read Secret %q: %w", ref.Name, err)
			}
			continue
		}
		if ref.Use == routing.SecretClientCertificate {
			warnings = append(warnings, fmt.Sprintf("%s: %s: key %q of Secret %q is not given; the client certificate is left out", object.Name, ref.Where, ref.Key, ref.Name))
			object.Spec.TLS.ClientCertificateSecretRef.Name = ""
			continue
		}
		warnings = append(warnings, fmt.Sprintf("%s: %s: key %q of Secret %q is not given; a placeholder takes its place", object.Name, ref.Where, ref.Key, ref.Name))
		if ref.Use == routing.SecretCertificates {
			object.Spec.TLS.CASecretRef = nil
			continue
		}
		if added[ref.Name] == nil {
			added[ref.Name] = map[string][]byte{}
		}
		added[ref.Name][ref.Key] = []byte(placeholderOf(ref.Use))
	}
	if ref := object.Spec.TLS.CAConfigMapRef; ref != nil {
		has, err := hasKey(from.ConfigMaps, ref.Name, ref.Key)
		if err != nil {
			return from, nil, fmt.Errorf("read ConfigMap %q: %w", ref.Name, err)
		}
		if !has {
			warnings = append(warnings, fmt.Sprintf("%s: spec.tls.caConfigMapRef: key %q of ConfigMap %q is not given; the certificates are left out", object.Name, ref.Key, ref.Name))
			object.Spec.TLS.CAConfigMapRef = nil
		}
	}
	if from.Services == nil {
		if ref := object.Spec.ServiceRef; ref.Name != "" {
			warnings = append(warnings, fmt.Sprintf("%s: spec.serviceRef: Service %q is not looked for; a placeholder with port %d takes its place", object.Name, ref.Name, ref.Port))
		}
		from.Services = routing.PlaceholderServices(object)
	}
	return routing.Sources{ConfigMaps: from.ConfigMaps, Services: from.Services, Secrets: func(name string) (map[string][]byte, bool, error) {
		data, found := map[string][]byte{}, false
		if from.Secrets != nil {
			given, has, err := from.Secrets(name)
			if err != nil {
				return nil, false, err
			}
			maps.Copy(data, given)
			found = has
		}
		maps.Copy(data, added[name])
		return data, found || added[name] != nil, nil
	}}, warnings, nil
}

func hasKey(source func(string) (map[string][]byte, bool, error), name, key string) (bool, error) {
	if source == nil {
		return false, nil
	}
	data, found, err := source(name)
	if err != nil || !found {
		return false, err
	}
	_, found = data[key]
	return found, nil
}

func placeholderOf(use routing.SecretUse) string {
	switch use {
	case routing.SecretSigningKey:
		return placeholderKey
	case routing.SecretURL:
		return placeholderURL
	default:
		return placeholderCredential
	}
}

// pattern is the one of spec.events that names a type, "" if none does.
func (s *subscription) pattern(of Event) string {
	i := slices.IndexFunc(s.entry.Patterns, func(p event.Pattern) bool { return p.Matches(of.Type) })
	if i < 0 {
		return ""
	}
	return string(s.entry.Patterns[i])
}
