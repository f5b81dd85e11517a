package dispatcher

import (
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/pull"
)

// openPulls makes what answers the consumers that ask for their deliveries.
func (d *dispatcher) openPulls() (err error) {
	d.pulls, err = pull.New(pull.Options{
		Store: d.store, Maker: d.maker, Routes: d.routes, Memory: d.memory, Connections: d.limits.Connections, Changed: d.changed, GivenUp: d.givenUp, Now: d.store.Now,
		Finished: func(tenant string, deliveries, bytes int64) { d.quotas.Add(tenant, -deliveries, -bytes) },
		Logger:   d.Logger.WithName("pull"), Registerer: d.registry,
	})
	return err
}

// accept passes on what became durable and is due: to the engine, and to consumers that wait for it.
func (d *dispatcher) accept(fanouts []delivery.Fanout) {
	d.engine.Accept(fanouts)
	d.pulls.Stored(fanouts)
}

// resume passes on what was made pending again.
func (d *dispatcher) resume(deliveries []delivery.PendingDelivery) {
	d.engine.Resume(deliveries)
	d.pulls.Resumed(deliveries)
}
