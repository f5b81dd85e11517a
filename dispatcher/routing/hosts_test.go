package routing

import (
	"slices"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestCompileHosts: what a spec names is checked at once, and the bounds go with what is looked up later.
func TestCompileHosts(t *testing.T) {
	t.Parallel()
	bound := func(hosts ...string) Bound { return Bound{Hosts: hosts, Reason: "HostNotAllowed", Mend: "mend it"} }
	oauth := func(where func(*v1alpha1.WebhookSubscription) **v1alpha1.Auth) func(*v1alpha1.WebhookSubscription) {
		return func(s *v1alpha1.WebhookSubscription) {
			*where(s) = &v1alpha1.Auth{OAuth2ClientCredentials: &v1alpha1.OAuth2ClientCredentials{
				TokenURL: "https://token.example.org/" + canary, SecretRef: v1alpha1.SecretReference{Name: "client"},
			}}
		}
	}
	lookup := func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Lookup = &v1alpha1.Lookup{URL: "'https://api.example.net/' + event.data.id"}
		s.Spec.Transform = &v1alpha1.Transform{Body: "lookup"}
	}
	secrets := clinicSecrets()
	secrets["client"] = map[string][]byte{"clientID": []byte("id"), "clientSecret": []byte(canary)}
	sources := secretsOf(secrets)
	sources.Services = withService(clusterService()).Services
	for name, test := range map[string]struct {
		edit   func(*v1alpha1.WebhookSubscription)
		bounds []Bound
		want   string // in the message; "" if it is accepted
		within int
	}{
		"no bounds":           {func(*v1alpha1.WebhookSubscription) {}, nil, "", 0},
		"its host":            {func(*v1alpha1.WebhookSubscription) {}, []Bound{bound("billing.example.com")}, "", 0},
		"below a suffix":      {func(*v1alpha1.WebhookSubscription) {}, []Bound{bound("*.example.com")}, "", 0},
		"another host":        {func(*v1alpha1.WebhookSubscription) {}, []Bound{bound("hooks.example.com")}, `spec.url: the host "billing.example.com"`, 0},
		"no host":             {func(*v1alpha1.WebhookSubscription) {}, []Bound{bound()}, "spec.url", 0},
		"of one of two":       {func(*v1alpha1.WebhookSubscription) {}, []Bound{bound("*.example.com"), bound("a.example.com")}, "spec.url", 0},
		"upper case":          {func(s *v1alpha1.WebhookSubscription) { s.Spec.URL = "https://BILLING.example.com:8443/" }, []Bound{bound("billing.example.com")}, "", 0},
		"from a Secret":       {func(s *v1alpha1.WebhookSubscription) { s.Spec.URL, s.Spec.URLFrom = "", from("billing", "url") }, []Bound{bound("billing.example.com")}, "spec.urlFrom", 0},
		"a token of another":  {oauth(func(s *v1alpha1.WebhookSubscription) **v1alpha1.Auth { return &s.Spec.Auth }), []Bound{bound("billing.example.com")}, "spec.auth.oauth2ClientCredentials.tokenURL", 0},
		"a token of the list": {oauth(func(s *v1alpha1.WebhookSubscription) **v1alpha1.Auth { return &s.Spec.Auth }), []Bound{bound("billing.example.com", "token.example.org")}, "", 0},
		"a lookup's token": {func(s *v1alpha1.WebhookSubscription) {
			lookup(s)
			oauth(func(s *v1alpha1.WebhookSubscription) **v1alpha1.Auth { return &s.Spec.Lookup.Auth })(s)
		}, []Bound{bound("billing.example.com")}, "spec.lookup.auth", 0},
		"a lookup":              {lookup, []Bound{bound("billing.example.com"), bound("*.example.com")}, "", 2},
		"a consumer that pulls": {func(s *v1alpha1.WebhookSubscription) { s.Spec.URL, s.Spec.Delivery.Mode = "", v1alpha1.DeliveryPull }, []Bound{bound()}, "", 0},
		"a Service":             {func(s *v1alpha1.WebhookSubscription) { s.Spec.URL, s.Spec.ServiceRef = "", leading().Spec.ServiceRef }, []Bound{bound()}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := minimal()
			test.edit(sub)
			entry, rejection, err := Compile(sub, sources, Policy{Catalog: catalog(t), Bounds: test.bounds})
			if err != nil {
				t.Fatal(err)
			}
			if test.want != "" {
				if rejection == nil || rejection.Reason != "HostNotAllowed" || !strings.Contains(rejection.Message, test.want) || !strings.HasSuffix(rejection.Message, "mend it") || strings.Contains(rejection.Message, canary) {
					t.Errorf("got %+v, want %s", rejection, test.want)
				}
				return
			}
			if rejection != nil || len(entry.Within) != test.within {
				t.Fatalf("got %+v, and %d lists", rejection, len(entry.Within))
			}
			route, err := entry.Route()
			if err != nil {
				t.Fatal(err)
			}
			if reach := route.Endpoint.Target.Reach; test.within > 0 && !slices.EqualFunc(reach.Within, entry.Within, slices.Equal) {
				t.Errorf("the target is bound to %v", reach.Within)
			}
			if held := Hold(entry, 2, "HostNotAllowed"); held.Within != nil {
				t.Errorf("what waits has %v", held.Within)
			}
		})
	}
}
