package web

import (
	"strings"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// policies say by which rules subscriptions are compiled, as far as the user may see their dispatchers.
type policies struct {
	// fallback is for what no visible dispatcher serves.
	fallback    routing.Policy
	dispatchers []v1alpha1.WebhookDispatcher
}

// policies reads the dispatchers. A user who may not list them gets the most lenient rules, and is told so.
func (s *Server) policies(c *call) *policies {
	p := &policies{fallback: routing.Policy{Catalog: s.options.Catalog, AllowHTTP: true}}
	dispatchers, err := c.Objects.Dispatchers(c.Context())
	if err == nil {
		p.dispatchers = dispatchers
	}
	return p
}

// of returns the rules for a subscription, and whether they are its dispatcher's.
func (p *policies) of(sub *v1alpha1.WebhookSubscription) (_ routing.Policy, known bool) {
	d := p.dispatcher(sub)
	if d == nil {
		return p.fallback, false
	}
	catalog, err := event.NewCatalog(d.Spec.EventResources...)
	if err != nil {
		return p.fallback, false
	}
	allow := d.Spec.Egress.AllowHTTP
	return routing.Policy{Catalog: catalog, AllowHTTP: allow != nil && *allow}, true
}

// dispatcher is that of a subscription, or nil. Without a namespace it is the one in the manager's, which the console does not
// know: then the name has to be the only one.
func (p *policies) dispatcher(sub *v1alpha1.WebhookSubscription) (found *v1alpha1.WebhookDispatcher) {
	ref := sub.Spec.DispatcherRef
	if ref.Name == "" {
		ref.Name = "default" // as the CRD has it
	}
	for i := range p.dispatchers {
		d := &p.dispatchers[i]
		if d.Name != ref.Name || ref.Namespace != "" && d.Namespace != ref.Namespace {
			continue
		}
		if found != nil {
			return nil
		}
		found = d
	}
	return found
}

// catalog is every resource that the console or a visible dispatcher knows.
func (p *policies) catalog() *event.Catalog {
	resources := p.fallback.Catalog.Resources()
	for i := range p.dispatchers {
		resources = append(resources[:len(resources):len(resources)], p.dispatchers[i].Spec.EventResources...)
	}
	catalog, err := event.NewCatalog(resources...)
	if err != nil {
		return p.fallback.Catalog
	}
	return catalog
}

// unknown says what the manager may refuse that this console accepts, because it does not see the dispatcher's settings.
func unknown(sub *v1alpha1.WebhookSubscription) (notes []string) {
	const unseen = "This console does not see the settings of the subscription's dispatcher. "
	if plain(sub) {
		notes = append(notes, unseen+"A URL with http is refused later unless the dispatcher has spec.egress.allowHTTP.")
	}
	for _, pattern := range sub.Spec.Events {
		p, err := event.ParsePattern(pattern)
		if err != nil || p.Resource() == "" || p.Resource() == event.Operational {
			continue
		}
		if builtIn, err := event.NewCatalog(); err == nil && !builtIn.Has(p.Resource()) {
			notes = append(notes, unseen+"Events of "+p.Resource()+" are refused later unless the dispatcher has it in spec.eventResources.")
			break
		}
	}
	return notes
}

// plain reports whether a subscription names a URL without TLS.
func plain(sub *v1alpha1.WebhookSubscription) bool {
	urls := []string{sub.Spec.URL}
	for _, auth := range []*v1alpha1.Auth{sub.Spec.Auth, lookupAuth(sub)} {
		if auth != nil && auth.OAuth2ClientCredentials != nil {
			urls = append(urls, auth.OAuth2ClientCredentials.TokenURL)
		}
	}
	if sub.Spec.ServiceRef.Scheme == v1alpha1.ServiceHTTP {
		return true
	}
	for _, u := range urls {
		if len(u) >= 5 && strings.EqualFold(u[:5], "http:") {
			return true
		}
	}
	return false
}

func lookupAuth(sub *v1alpha1.WebhookSubscription) *v1alpha1.Auth {
	if sub.Spec.Lookup == nil {
		return nil
	}
	return sub.Spec.Lookup.Auth
}
