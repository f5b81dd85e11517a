package dispatcher

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// checkHosts names the flag to mend.
func (o *Options) checkHosts() error {
	for _, host := range o.IngestHosts {
		if len(validation.IsDNS1123Subdomain(host)) > 0 {
			return fmt.Errorf("--ingest-host=%q: want a host name in lower case, without a port, such as events.example.com", host)
		}
	}
	return nil
}

// hosts are the names by which clients may name the API without authentication, beside those that every dispatcher knows:
// those of the options, and the one of its Service that has no domain behind the namespace.
func (o *Options) hosts() []string {
	own := "eventflow-dispatcher-" + o.Name + "." + o.Namespace
	return append([]string{strings.ToLower(own)}, o.IngestHosts...)
}
