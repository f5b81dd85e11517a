package dispatcher

import (
	"cmp"
	"strconv"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The ports of a dispatcher's container.
const (
	httpPort = 8080
	opsPort  = 8081
	// httpsPort is next to that of the deliveries API.
	httpsPort = 8444
)

// arguments is the command line of a dispatcher's container: what only a restart can change. All else is in its settings.
func arguments(d *v1alpha1.WebhookDispatcher) []string {
	args := []string{
		"dispatcher",
		"--dispatcher-name=" + d.Name,
		"--dispatcher-namespace=" + d.Namespace,
		"--routes=kubernetes",
		"--settings=kubernetes",
		"--ops-listen=:" + strconv.Itoa(opsPort),
		"--ingest-auth=" + ingestAuth(d),
	}
	args = append(args, ingestArguments(d)...)
	args = append(args, "--audit-level="+string(cmp.Or(d.Spec.Audit.Level, v1alpha1.AuditReads)))
	args = append(args, storeArguments(d)...)
	args = append(args, encryptionArguments(d)...)
	args = append(args, deliveriesArguments(d)...)
	args = append(args, proxyArguments(d)...)
	for _, host := range d.Spec.Ingest.Hosts {
		args = append(args, "--ingest-host="+host)
	}
	return append(args, limitArguments(&d.Spec)...)
}

// limitArguments are the limits that are set.
func limitArguments(spec *v1alpha1.WebhookDispatcherSpec) (args []string) {
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"max-in-flight", int64(spec.Limits.AttemptsInFlight)},
		{"max-connections", int64(spec.Limits.Connections)},
		{"max-memory", spec.Limits.Memory.Value()},
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
