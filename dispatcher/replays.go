package dispatcher

import (
	"context"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/replay"
)

// openReplays makes what runs the WebhookReplays of the dispatcher's subscriptions, if they come from a cluster.
func (d *dispatcher) openReplays() error {
	if d.Routes != routesKubernetes {
		return nil
	}
	name := d.Namespace + "/" + d.Name
	client, err := replay.NewClient(d.cluster, name)
	if err != nil {
		return err
	}
	d.replays, err = replay.New(replay.Options{
		Client: client, Name: name, Deliveries: d.deliveries, Namespaces: d.routedNamespaces, Full: d.quotas.Full, Memory: d.memory, MaxEventBytes: d.maxEventBytes,
		Tenant: func(ctx context.Context, namespace string) (string, bool, error) { return d.tenant(ctx, namespace, "") },
		Leads:  func() bool { return d.engine.Owns(event.SubscriptionKey{}) },
		Logger: d.Logger.WithName("replay"),
	})
	return err
}

// runReplays runs replays until ctx ends. They are the first to stop: what they make pending, nobody would deliver any more.
func (d *dispatcher) runReplays(ctx context.Context) {
	if d.replays != nil {
		d.replays.Run(ctx)
	}
}

// routedNamespaces are those with a subscription in the routing table.
func (d *dispatcher) routedNamespaces() []string {
	seen := map[string]bool{}
	var all []string
	for route := range d.table.Load().All() {
		if !seen[route.Namespace] {
			seen[route.Namespace] = true
			all = append(all, route.Namespace)
		}
	}
	return all
}
