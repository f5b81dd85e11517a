package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/audit"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/kube"
	"github.com/clinikapi/eventflow/dispatcher/limits"
	"github.com/clinikapi/eventflow/dispatcher/operational"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/pull"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/replay"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/status"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/tracing"
)

const (
	// shutdownTimeout is how long requests that are under way at the stop may take.
	shutdownTimeout = 5 * time.Second
	// stopTimeout is how long the stop may take after DrainDelay: requests, then attempts (20 s), then what they leave. With
	// the default delay it ends before the 40 s after which Kubernetes kills the process.
	stopTimeout = 33 * time.Second
	// openTimeout is how long the opening of the store may go on after the signal to stop.
	openTimeout = 2 * time.Second
)

// dispatcher is one data plane: the steps of an event's way, put together.
type dispatcher struct {
	Options
	understood
	machine          limits.Machine
	limits           limits.Limits
	shownConnections int            // of the deliveries API
	memory           *budget.Budget // bytes, by namespace
	registry         *prometheus.Registry
	store            store.Store
	below            store.Store // what is under the encryption
	feed             *query.Feed // over the encryption; nil without the deliveries API
	sender           *egress.Client
	tracer           *tracing.Tracer // nil if nothing is traced
	clients          *kube.Clients   // nil without Kubernetes
	engine           *engine.Engine
	api              *ingest.Handler
	maker            *payload.Sender // of requests
	pulls            *pull.Puller
	authorizer       *ingest.Kubernetes // nil without Kubernetes
	audit            *audit.Log         // nil if nothing is recorded
	shown            *deliveriesServer
	deliveries       *query.Deliveries
	replays          *replay.Runner // nil without Kubernetes
	source           routing.Source
	namespaces       *namespaces
	quotas           *quota.Keeper
	announcer        *operational.Announcer
	counted          counts
	guarded          *guarded              // what deliveries never reach
	statuses         status.Client         // nil without Kubernetes
	status           *status.Writer        // nil without Kubernetes
	cluster          *rest.Config          // nil without Kubernetes
	firstUse         *firstUse             // nil but for an embedded store of a WebhookDispatcher
	reporter         *status.StoreReporter // nil without Kubernetes
	encryption       *encryption           // nil if nothing is encrypted
	unlock           func(ctx context.Context, tenant string) error
	programming      programming
	revision         atomic.Int64 // of the table that every pod works by; 0 while there is none

	failed  chan error         // a part that cannot go on says so
	stop    context.CancelFunc // begins the stop
	table   atomic.Pointer[routing.Table]
	ready   atomic.Bool
	loaded  chan struct{} // closed once there is a table
	loading sync.Once

	live     atomic.Pointer[inForce]
	settled  chan struct{} // closed once there are settings
	settling sync.Once
}

// Run runs a dispatcher until ctx ends, and then stops it so that nothing is lost: it fails /readyz and goes on accepting
// for DrainDelay, finishes the requests and attempts under way, and leaves the rest in the store. It returns an error if
// it could not start or go on. It returns within DrainDelay and stopTimeout after ctx ended or a part failed, whatever then
// hangs: what was acknowledged is in the store, as after a crash.
func Run(ctx context.Context, options Options) error {
	d, err := newDispatcher(options)
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	defer d.stop()
	ops, err := d.listenOps(ctx)
	if err != nil {
		return fmt.Errorf("--ops-listen: %w", err)
	}
	defer ops.close()
	if err := d.listenDeliveries(ctx); err != nil {
		return err
	}
	defer d.shown.close()
	ended, err := within(ctx, openTimeout, func() error { return d.open(ctx) })
	if !ended || err != nil {
		if ctx.Err() == nil {
			return err
		}
		d.Logger.Info("Stopped before the store was open")
		return d.failure()
	}
	ended, err = within(ctx, d.DrainDelay+stopTimeout, func() error { return d.serve(ctx, ops) })
	if !ended {
		return fmt.Errorf("stop within %v: a part still runs; what was acknowledged is safe", d.DrainDelay+stopTimeout)
	}
	return err
}

// newDispatcher returns a dispatcher that has opened nothing yet.
func newDispatcher(options Options) (*dispatcher, error) {
	keepToOwner()
	meant, err := options.check()
	if err != nil {
		return nil, err
	}
	machine := limits.Detect()
	shares := options.limits(limits.Derive(machine))
	shown := options.splitConnections(&shares)
	shares.Apply()
	d := &dispatcher{
		Options: options, understood: meant, machine: machine, limits: shares, shownConnections: shown, memory: budget.New(shares.MemoryBudget), registry: newRegistry(),
		loaded: make(chan struct{}), settled: make(chan struct{}), failed: make(chan error, 1),
	}
	d.live.Store(meant.start)
	if d.Settings != settingsKubernetes {
		d.settling.Do(func() { close(d.settled) })
	}
	d.quotas = quota.New(d.quotaOf, time.Now)
	d.guarded = newGuarded()
	d.register()
	return d, nil
}

// within calls f, reports whether it ended, and returns its error. Once ctx has ended, it waits for f no longer than patience:
// some of what f does, such as the recovery of a store, does not end with a context.
func within(ctx context.Context, patience time.Duration, f func() error) (ended bool, err error) {
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return true, err
	case <-ctx.Done():
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-result:
		return true, err
	case <-late.C:
		return false, nil
	}
}

// serve accepts and delivers until ctx ends, and closes what is open.
func (d *dispatcher) serve(ctx context.Context, ops *server) error {
	defer func() {
		d.hideDeliveries()
		if err := d.close(); err != nil {
			d.Logger.Error(err, "Closing the store failed; what was acknowledged is safe")
		}
	}()
	if ctx.Err() != nil {
		return nil
	}
	api, err := d.listenAPI(ctx)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer api.close()
	if err := d.showDeliveries(); err != nil {
		return err
	}
	return d.run(ctx, api, ops)
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// open opens the store and makes the parts that work on it.
func (d *dispatcher) open(ctx context.Context) error {
	var err error
	if d.clients, err = d.connect(); err != nil {
		return err
	}
	start := d.start.Egress
	d.sender, err = egress.New(egress.Options{
		Version: d.Version, AllowHTTP: start.AllowHTTP, MinTLS: start.MinTLS, AllowedCIDRs: start.AllowedCIDRs, DeniedCIDRs: start.DeniedCIDRs, AllowedPorts: start.AllowedPorts,
		Proxy: d.proxy(d.Logger.WithName("proxy")), OwnPorts: d.guarded.ports, Denied: d.guarded.addresses, MaxIdleConns: d.limits.IdleConnections,
		Dial: d.Around.Dial,
	})
	if err != nil {
		return fmt.Errorf("set egress up: %w", err)
	}
	if err := d.prepareEncryption(); err != nil {
		return err
	}
	if d.pebbleDir != "" {
		if err := prepareUse(d.pebbleDir); err != nil {
			return err
		}
	}
	if d.below, err = d.waitForStore(ctx); err != nil {
		return err
	}
	d.below = d.Around.seen(d.below)
	encrypted, err := d.encrypt(d.below)
	if err != nil {
		return errors.Join(err, d.below.Close())
	}
	d.store, d.unlock = d.noticed(encrypted), encrypted.Unlock
	if err := d.trackUse(d.cluster); err != nil {
		return errors.Join(err, d.close())
	}
	if d.tracer, err = tracing.New(ctx, tracing.Options{Getenv: os.Getenv, Version: d.Version, Logger: d.Logger.WithName("tracing")}); err != nil {
		return errors.Join(err, d.close())
	}
	d.maker, err = payload.New(payload.Options{Client: d.sender, Memory: d.memory, Registerer: d.registry, Now: d.store.Now, Failed: d.requestFailed})
	if err != nil {
		return errors.Join(fmt.Errorf("set the making of requests up: %w", err), d.close())
	}
	d.engine = engine.New(engine.Options{
		Store: d.store, Sender: d.traced(d.maker), Logger: d.Logger.WithName("delivery"), Registerer: d.registry,
		Changed: d.changed, Taken: d.taken, Happened: func(h engine.Happening) { d.announcer.Note(h) }, MaxInFlight: d.limits.Places, Memory: d.memory, Now: d.store.Now,
		TenantInFlight: d.start.Quota.AttemptsInFlight, Jitter: d.Around.Jitter,
		Finished: func(tenant string, deliveries, bytes int64) { d.quotas.Add(tenant, -deliveries, -bytes) },
	})
	d.source, d.namespaces = d.newSource(), newNamespaces(nil)
	if d.clients != nil {
		d.namespaces.server = d.clients.Namespaces
	}
	if err = errors.Join(d.openAudit(), d.openAnnouncer(), d.openAPI(), d.openReplays()); err != nil {
		return errors.Join(err, d.close())
	}
	return nil
}

// close ends what open began.
func (d *dispatcher) close() error {
	if d.status != nil {
		d.status.Close()
	}
	d.closeTracer()
	return errors.Join(d.audit.Close(), d.store.Close())
}

// connect finds the cluster, if the options need one, and makes what writes statuses to it.
func (d *dispatcher) connect() (*kube.Clients, error) {
	if d.Routes != routesKubernetes && d.IngestAuth != authKubernetes {
		return nil, nil
	}
	config, err := d.clusterConfig()
	if err != nil {
		return nil, err
	}
	d.cluster = config
	if d.Routes == routesKubernetes {
		if d.statuses, err = status.NewClient(config); err != nil {
			return nil, err
		}
		if d.reporter, err = status.NewStoreReporter(config, d.Namespace, d.Name, d.Logger.WithName("status")); err != nil {
			return nil, err
		}
		d.reporter.ShowVersion(d.Version)
		if d.ProgrammedByRevision {
			d.reporter.ShowRevision(d.programmedRevision)
		}
	}
	return kube.New(config)
}

// openAPI makes the API, and what tells Kubernetes of deliveries.
func (d *dispatcher) openAPI() error {
	if d.statuses != nil {
		d.status = status.New(d.store, d.statuses, d.engine.Owns, d.Logger.WithName("status"))
		if d.ProgrammedByRevision {
			d.status.ByRevision()
		}
		d.programming.use = d.programmed
		d.programming.fleet, _ = d.below.(fleet)
	}
	var err error
	var authorizer ingest.Authorizer = ingest.None{}
	if d.IngestAuth == authKubernetes {
		if d.authorizer, err = d.newAuthorizer(); err != nil {
			return err
		}
		authorizer = d.authorizer
	}
	accepting := d.store
	if d.firstUse != nil {
		accepting = d.firstUse
	}
	accepting = newTimed(accepting, d.registry)
	if err := d.openPulls(); err != nil {
		return err
	}
	d.deliveries, err = query.New(query.Options{Store: accepting, Resume: d.resume, Quota: d.quotas, Now: d.store.Now})
	if err != nil {
		return err
	}
	d.api, err = ingest.New(ingest.Options{
		Store: accepting, Routes: d.routes, Accept: d.accept, Deliveries: d.deliveries, Pulls: d.pulls, Memory: d.memory, Catalog: d.start.catalog, Authorizer: authorizer,
		Tenant: d.tenant, Quota: d.quotas, Hosts: d.hosts(), Terms: d.terms, FilterFailed: d.filterFailed, ScheduleFailed: d.scheduleFailed, Now: d.store.Now,
		GivenUp: d.givenUp, Unlock: d.unlock, Tracer: d.tracer, Audit: d.audit, CertificateUser: d.certificateUser(),
		Logger: d.Logger.WithName("ingest"), Registerer: d.registry,
	})
	return err
}

// certificateUser returns what reads producers' certificates, nil if they say nothing.
func (d *dispatcher) certificateUser() func(*http.Request) *authenticationv1.UserInfo {
	if d.IngestClientCAFile == "" {
		return nil
	}
	return (&clientCA{file: d.IngestClientCAFile, logger: d.Logger.WithName("ingest")}).user
}

// changed passes on that something became of a subscription's deliveries.
func (d *dispatcher) changed(key event.SubscriptionKey) {
	if d.status != nil {
		d.status.Changed(key)
	}
}

// filterFailed passes on that a subscription's filter failed.
func (d *dispatcher) filterFailed(key event.SubscriptionKey, err *expression.Error) {
	if d.status != nil {
		d.status.FilterFailed(key, string(err.Reason), err.Error())
	}
}

// scheduleFailed passes on that a subscription's schedule failed.
func (d *dispatcher) scheduleFailed(key event.SubscriptionKey, err *expression.Error) {
	if d.status != nil {
		d.status.ScheduleFailed(key, string(err.Reason), err.Error())
	}
}

// requestFailed passes on that a request of a subscription could not be made, or its answer not read.
func (d *dispatcher) requestFailed(key event.SubscriptionKey, failure payload.Failure) {
	if d.status != nil {
		d.status.RequestFailed(key, failure.Reason, failure.Use+": "+failure.Message)
	}
}

// taken passes on that the work on a shard begins.
func (d *dispatcher) taken(shard int) {
	if d.status != nil {
		d.status.Taken(shard)
		d.reporter.Wake()
	}
}

// programmed passes on that every pod works by a table.
func (d *dispatcher) programmed(table *routing.Table) {
	d.status.Use(table)
	d.revision.Store(table.Revision)
	d.reporter.Wake()
}

// programmedRevision is that of the table that every pod works by, 0 if another pod is to say it: one that has the lease of the
// first shard does.
func (d *dispatcher) programmedRevision() int64 {
	if d.engine == nil || !d.engine.Owns(event.SubscriptionKey{}) { // the store may still be opened
		return 0
	}
	return d.revision.Load()
}

// run delivers until ctx ends or a part fails, and then stops the parts from the outside in.
func (d *dispatcher) run(ctx context.Context, api, ops *server) error {
	var source, delivering, reporting sync.WaitGroup
	sourceCtx, stopSource := context.WithCancel(context.WithoutCancel(ctx))
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	statusCtx, stopStatus := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		stopSource()
		source.Wait()
		stopEngine()
		delivering.Wait()
		stopStatus()
		reporting.Wait()
	}()
	d.guarded.listen(d.listening(api, ops)...)
	source.Go(func() { d.follow(sourceCtx) })
	source.Go(func() { d.report(d.source.Run(sourceCtx, d.use)) })
	if d.firstUse != nil {
		reporting.Go(func() {
			d.firstUse.announce(statusCtx, func(err error) {
				d.Logger.V(1).Info("Saying how the store is used failed; trying again", "error", err.Error())
			})
		})
	}
	reporting.Go(func() { d.guarded.run(statusCtx, d.guardedNames()) })
	reporting.Go(func() { d.readFrontProxy(statusCtx) })
	if d.encryption != nil {
		reporting.Go(func() { d.keepSeeds(statusCtx) })
	}
	if d.status != nil {
		reporting.Go(func() { d.status.Run(statusCtx) })
		d.reporter.ShowUsage(d.largest)
		d.reporter.ShowSettings(d.settingsGeneration)
		reporting.Go(func() { d.reporter.Run(statusCtx, d.store.Ready) })
		reporting.Go(func() { d.programming.run(statusCtx) })
	}

	for _, there := range []<-chan struct{}{d.settled, d.loaded} {
		select {
		case <-there:
		case <-ctx.Done():
			return d.failure()
		}
	}
	delivering.Go(func() { d.report(d.engine.Run(engineCtx)) })
	reporting.Go(func() { d.announcer.Run(statusCtx) })
	reporting.Go(func() { d.countPending(statusCtx) })
	reporting.Go(func() { d.runReplays(ctx) })
	d.ready.Store(true)
	d.Logger.Info("Dispatcher ready", "api", api.address(), "ops", ops.address(), "subscriptions", d.table.Load().Len())
	if d.Started != nil {
		d.Started(api.address(), ops.address())
	}
	<-ctx.Done()
	d.ready.Store(false)
	if err := d.failure(); err != nil {
		return err
	}
	return d.drain(api)
}

// failure is the error of the part that failed first; nil if none did.
func (d *dispatcher) failure() error {
	select {
	case err := <-d.failed:
		return err
	default:
		return nil
	}
}

// report notes that a part ended with err, if that is not nil, and begins the stop; the first one counts.
func (d *dispatcher) report(err error) {
	if err == nil {
		return
	}
	select {
	case d.failed <- err:
	default:
	}
	d.stop()
}

// drain lets clients leave and requests finish.
func (d *dispatcher) drain(api *server) error {
	d.Logger.Info("Stopping", "drainDelay", d.DrainDelay)
	d.api.Drain()
	<-time.After(d.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var shown sync.WaitGroup
	shown.Go(func() { d.shown.shutdown(ctx) })
	defer shown.Wait()
	if err := api.Shutdown(ctx); err != nil {
		d.Logger.Info("Some requests were still under way at the stop; they were not acknowledged")
	}
	return nil
}

// use makes table the one to match and deliver by, everywhere at once.
func (d *dispatcher) use(table *routing.Table) {
	d.engine.Use(endpoints{table}, !table.Stale)
	d.announcer.Replaced(d.table.Swap(table), table)
	switch {
	case d.status == nil:
	case table.Stale:
		d.status.Recall(table)
	default:
		d.programming.add(table)
	}
	d.loading.Do(func() { close(d.loaded) })
}

// endpoints shows the engine the part of a table that it delivers by.
type endpoints struct{ table *routing.Table }

// Endpoint returns where the subscription's deliveries go.
func (e endpoints) Endpoint(key event.SubscriptionKey) (*engine.Endpoint, bool) {
	route, ok := e.table.Get(key)
	if !ok {
		return nil, false
	}
	return route.Endpoint, true
}
