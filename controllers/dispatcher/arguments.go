package dispatcher

import (
	"strconv"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The ports of a dispatcher's container.
const (
	httpPort = 8080
	opsPort  = 8081
)

// arguments is the command line of a dispatcher's container.
func arguments(d *v1alpha1.WebhookDispatcher) []string {
	args := []string{
		"dispatcher",
		"--dispatcher-name=" + d.Name,
		"--dispatcher-namespace=" + d.Namespace,
		"--routes=kubernetes",
		"--listen=:" + strconv.Itoa(httpPort),
		"--ops-listen=:" + strconv.Itoa(opsPort),
		"--ingest-auth=" + ingestAuth(d),
	}
	args = append(args, storeArguments(d)...)
	spec := &d.Spec
	if n := spec.Ingest.MaxEventBytes; n > 0 {
		args = append(args, "--max-event-bytes="+strconv.Itoa(int(n)))
	}
	if grace := spec.Ingest.OutageGrace; grace != nil {
		args = append(args, "--ingest-outage-grace="+grace.Duration.String())
	}
	args = append(args, limitArguments(spec)...)
	if d := spec.Retention.Delivered.Duration; d > 0 {
		args = append(args, "--retention-delivered="+d.String())
	}
	if d := spec.Retention.Failed.Duration; d > 0 {
		args = append(args, "--retention-failed="+d.String())
	}
	if allow := spec.Egress.AllowHTTP; allow != nil && *allow {
		args = append(args, "--egress-allow-http")
	}
	for _, port := range spec.Egress.AllowedPorts {
		args = append(args, "--egress-allow-port="+strconv.Itoa(int(port)))
	}
	for _, cidr := range spec.Egress.AllowedCIDRs {
		args = append(args, "--egress-allow-cidr="+cidr)
	}
	for _, cidr := range spec.Egress.DeniedCIDRs {
		args = append(args, "--egress-deny-cidr="+cidr)
	}
	for _, resource := range spec.EventResources {
		args = append(args, "--event-resource="+resource)
	}
	return args
}

// limitArguments are the limits that are set. What an override says for some tenants stands in the routing table.
func limitArguments(spec *v1alpha1.WebhookDispatcherSpec) (args []string) {
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"max-in-flight", int64(spec.Limits.AttemptsInFlight)},
		{"max-connections", int64(spec.Limits.Connections)},
		{"max-memory", spec.Limits.Memory.Value()},
		{"quota-events-per-second", int64(spec.Quotas.EventsPerSecond)},
		{"quota-events-burst", int64(spec.Quotas.EventsBurst)},
		{"quota-pending-bytes", spec.Quotas.PendingBytes.Value()},
		{"quota-pending-deliveries", spec.Quotas.PendingDeliveries},
		{"quota-attempts-in-flight", int64(spec.Quotas.AttemptsInFlight)},
	} {
		if limit.value > 0 {
			args = append(args, "--"+limit.flag+"="+strconv.FormatInt(limit.value, 10))
		}
	}
	return args
}

// ingestAuth is how the dispatcher knows who publishes, as its command line has it. Whatever is not None is checked.
func ingestAuth(d *v1alpha1.WebhookDispatcher) string {
	if d.Spec.Ingest.Authentication == v1alpha1.IngestNone {
		return "none"
	}
	return "kubernetes"
}
