package dispatcher

import (
	"path/filepath"

	"k8s.io/client-go/kubernetes"

	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/routing/cluster"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
)

// newSource returns where the routing table comes from. The last good one is kept beside the store.
func (d *dispatcher) newSource(clients kubernetes.Interface) routing.Source {
	lastGood := routing.NewLastGood(filepath.Join(d.storeDir, "routes"))
	logger := d.Logger.WithName("routes")
	if d.Routes == routesKubernetes {
		return cluster.New(cluster.Config{
			Secrets: clients.CoreV1().Secrets(d.Namespace), Dispatcher: d.Name, LastGood: lastGood, Log: logger,
		})
	}
	return folder.New(folder.Config{
		Dir: d.Routes, Policy: routing.Policy{Catalog: d.catalog, AllowHTTP: d.EgressAllowHTTP}, LastGood: lastGood, Log: logger,
	})
}
