package dispatcher

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// inForce are the settings that the dispatcher works by, and what follows from them. They are immutable.
type inForce struct {
	settings.Settings
	catalog *event.Catalog
}

// retainer is a store of which the retention can be changed.
type retainer interface {
	Retain(delivered, failed time.Duration)
}

// settle makes the settings those that the dispatcher works by, everywhere, without a pause: what is under way ends by
// those before. Settings that cannot be worked by change nothing.
func (d *dispatcher) settle(s *settings.Settings) error {
	catalog, err := s.Catalog()
	if err != nil {
		return err
	}
	if err := d.sender.Allow(allowances(s)); err != nil {
		return fmt.Errorf("change what deliveries may reach: %w", err)
	}
	d.live.Store(&inForce{Settings: *s, catalog: catalog})
	d.engine.Limit(s.Quota.AttemptsInFlight)
	if store, ok := d.below.(retainer); ok {
		store.Retain(s.Delivered, s.Failed)
	}
	if d.programming.fleet != nil {
		d.programming.fleet.AnnounceSettings(s.Generation)
	}
	d.settling.Do(func() { close(d.settled) })
	return nil
}

// allowances are the settings that egress works by.
func allowances(s *settings.Settings) egress.Allowances {
	return egress.Allowances(s.Egress)
}

// follow takes the settings over as they change, until ctx ends. Those of the command line never do.
func (d *dispatcher) follow(ctx context.Context) {
	if d.Settings != settingsKubernetes {
		return
	}
	source := settings.Source{
		Secrets: d.clients.Secrets(d.Namespace), Dispatcher: d.Name, LastGood: d.lastGoodSettings(), Log: d.Logger.WithName("settings"),
	}
	source.Run(ctx, func(s *settings.Settings) {
		if err := d.settle(s); err != nil {
			d.Logger.Error(err, "Settings not usable, keeping the last ones", "generation", s.Generation)
			return
		}
		d.Logger.Info("Settings taken over", "generation", s.Generation)
	})
}

// lastGoodSettings keeps the last good settings beside the last good table; nil if there is no place for them.
func (d *dispatcher) lastGoodSettings() *settings.LastGood {
	dir := d.stateDir()
	if dir == "" {
		return nil
	}
	return settings.NewLastGood(filepath.Join(dir, "settings", settings.Key))
}

// routes is the table that events are matched by; nil until there are a table and settings.
func (d *dispatcher) routes() *routing.Table {
	select {
	case <-d.settled:
		return d.table.Load()
	default:
		return nil
	}
}

// terms are what an event must keep to.
func (d *dispatcher) terms() (catalog *event.Catalog, maxEventBytes int) {
	s := d.live.Load()
	return s.catalog, s.MaxEventBytes
}

// maxEventBytes bounds one event's JSON.
func (d *dispatcher) maxEventBytes() int { return d.live.Load().MaxEventBytes }

// outageGrace is that of now.
func (d *dispatcher) outageGrace() time.Duration { return d.live.Load().OutageGrace }

// settingsGeneration is the generation of the spec whose settings every live dispatcher works by; 0 if that is not known.
func (d *dispatcher) settingsGeneration() int64 {
	if d.programming.fleet != nil {
		return d.programming.fleet.OldestSettings()
	}
	return d.live.Load().Generation
}
