package dispatcher

import (
	"cmp"
	"path/filepath"

	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/routing/cluster"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
)

// newSource returns where the routing table comes from.
func (d *dispatcher) newSource() routing.Source {
	if d.Around.Routes != nil {
		return d.Around.Routes
	}
	lastGood := d.lastGood()
	logger := d.Logger.WithName("routes")
	if d.Routes == routesKubernetes {
		return cluster.New(cluster.Config{
			Secrets: d.clients.Secrets(d.Namespace), Dispatcher: d.Name, LastGood: lastGood, Log: logger,
		})
	}
	return folder.New(folder.Config{
		Dir: d.Routes, Policy: routing.Policy{Catalog: d.start.catalog, AllowHTTP: d.EgressAllowHTTP}, LastGood: lastGood, Log: logger,
	})
}

// lastGood keeps the last good table, so that a restart delivers while the API server is unavailable; nil if there is no place
// for it.
func (d *dispatcher) lastGood() *routing.LastGood {
	dir := d.stateDir()
	if dir == "" {
		return nil
	}
	kept := routing.NewLastGood(filepath.Join(dir, "routes"))
	if d.encryption != nil {
		kept.Encrypt(d.encryption.ring.Load)
		d.encryption.lastGood = kept
	}
	return kept
}

// stateDir is the folder that keeps what was read last; "" if there is none.
func (d *dispatcher) stateDir() string { return cmp.Or(d.StateDir, d.pebbleDir) }
