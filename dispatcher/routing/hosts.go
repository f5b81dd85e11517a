package routing

import (
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// Bound is a list of hosts, one of which a subscription must go to.
type Bound struct {
	Hosts egress.Hosts
	// Reason of Accepted=False if it goes to another one, and what to do then.
	Reason, Mend string
}

// compileHosts checks the hosts that the spec names. That of a lookup is known once there is an event: the bounds go with the
// entry then.
func (c *compiler) compileHosts() error {
	if len(c.policy.Bounds) == 0 {
		return nil
	}
	type destination struct{ where, url string }
	var all []destination
	if c.spec.ServiceRef == noService && !c.entry.Pull {
		where := "spec.url"
		if c.spec.URLFrom != nil {
			where = "spec.urlFrom"
		}
		all = append(all, destination{where, c.entry.URL})
	}
	if a := c.entry.Auth; a != nil && a.OAuth2 != nil {
		all = append(all, destination{"spec.auth.oauth2ClientCredentials.tokenURL", a.OAuth2.TokenURL})
	}
	if a := c.entry.LookupAuth; a != nil && a.OAuth2 != nil {
		all = append(all, destination{"spec.lookup.auth.oauth2ClientCredentials.tokenURL", a.OAuth2.TokenURL})
	}
	for _, bound := range c.policy.Bounds {
		for _, d := range all {
			host, err := egress.HostOf(d.url)
			if err != nil || !bound.Hosts.Have(host) {
				return reject(bound.Reason, "%s: the host %s is not one that namespace %q may deliver to: %s", d.where, quote(host), c.namespace, bound.Mend)
			}
		}
		if c.entry.Lookup != "" {
			c.entry.Within = append(c.entry.Within, bound.Hosts)
		}
	}
	return nil
}
