package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/announce"
	"github.com/clinikapi/eventflow/controllers/deliveriesapi"
	"github.com/clinikapi/eventflow/controllers/dispatcher"
	"github.com/clinikapi/eventflow/controllers/metrics"
	"github.com/clinikapi/eventflow/controllers/replay"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/controllers/subscription"
)

// leaseName is the lease that the working one of several managers holds.
const leaseName = "eventflow-manager"

// Requests a second to the API server, and how many at once after a pause. The API server's own priority and fairness
// protects it; these bounds keep one manager from taking all of its share.
const (
	requestsPerSecond = 500
	requestsBurst     = 1000
)

// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=create,namespace=eventflow-system
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;update,resourceNames=eventflow-manager,namespace=eventflow-system
// +kubebuilder:rbac:groups="",resources=events,verbs=create,namespace=eventflow-system

// Run works until ctx ends. It returns an error if the manager cannot start, or loses its lease.
func Run(ctx context.Context, cluster *rest.Config, o Options) error {
	o.complete()
	limitMemory()
	cluster = rest.CopyConfig(cluster)
	cluster.QPS, cluster.Burst = requestsPerSecond, requestsBurst
	for {
		if err := work(ctx, cluster, o); !errors.Is(err, errScopeGrew) || ctx.Err() != nil {
			return err
		}
	}
}

// work runs one manager until ctx ends, or until there are more namespaces for the next one: then it returns errScopeGrew.
func work(ctx context.Context, cluster *rest.Config, o Options) error {
	scope, err := findScope(ctx, cluster, o)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cluster, managerOptions(o, scope))
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	metrics.Show(o.Version)
	image, err := dispatcherImage(ctx, mgr.GetAPIReader(), o)
	if err != nil {
		return err
	}
	if err := errors.Join(addControllers(ctx, mgr, o, image, scope), addChecks(mgr)); err != nil {
		return err
	}
	if err := start(ctx, mgr); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	return nil
}

// unsyncedStop is how long a manager may take to stop before its caches hold what the API server has. Nothing works by then.
const unsyncedStop = time.Second

// start runs a manager until ctx ends. A library's manager waits for its caches even then; if the API server does not answer,
// that would be for as long as Kubernetes lets it.
func start(ctx context.Context, mgr ctrl.Manager) error {
	synced, done := make(synced), make(chan error, 1)
	if err := mgr.Add(synced); err != nil {
		return err
	}
	go func() { done <- mgr.Start(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-synced:
		return <-done
	case <-time.After(unsyncedStop):
		return nil
	}
}

// synced is closed once the manager's caches hold what the API server has.
type synced chan struct{}

// NeedLeaderElection lets it be known of each of several managers.
func (synced) NeedLeaderElection() bool { return false }

// Start is called then.
func (s synced) Start(ctx context.Context) error {
	close(s)
	<-ctx.Done()
	return nil
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

func managerOptions(o Options, scope *scope) ctrl.Options {
	always := true
	options := ctrl.Options{
		Scheme:                        newScheme(),
		Logger:                        o.Logger,
		Cache:                         cacheOptions(o.Namespace),
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress:        o.ProbeAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true, // nothing runs any more when Start has returned
		Controller:                    config.Controller{SkipNameValidation: &always, Logger: o.Logger},
	}
	if scope != nil {
		scope.confine(&options.Cache)
		options.NewCache = scope.newCache
	}
	return options
}

func addControllers(ctx context.Context, mgr ctrl.Manager, o Options, image dispatcher.Image, scope *scope) error {
	tables := routes.NewTables(mgr.GetClient(), mgr.GetAPIReader())
	label, err := subscription.ParseSecretLabel(o.SecretLabel)
	if err != nil {
		return fmt.Errorf("--secret-label: %w", err)
	}
	namespaces, err := addScope(mgr, scope)
	if err != nil {
		return err
	}
	err = (&subscription.Reconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Tables: tables, Namespaces: namespaces, SecretLabel: label,
	}).SetupWithManager(ctx, mgr)
	if err != nil {
		return fmt.Errorf("add the controller of subscriptions: %w", err)
	}
	if err := (&routes.Reconciler{Client: mgr.GetClient(), Tables: tables}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the controller of routing tables: %w", err)
	}
	if err := (&replay.Reconciler{Client: mgr.GetClient(), Reader: mgr.GetAPIReader()}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the controller of replays: %w", err)
	}
	if o.DeliveriesAPI && scope != nil {
		return errors.New("--deliveries-api registers an API with the whole cluster, and --namespaces keeps the manager to Roles: use one of them")
	}
	d := &dispatcher.Reconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Image: image,
		Grants: dispatcher.NewGrants(mgr.GetClient(), o.Namespace), Namespaces: scope.namespaces(),
		DeliveriesAPI: o.DeliveriesAPI,
	}
	if o.DispatcherImage == "" { // the image is the manager's own
		d.Version = o.Version
	}
	if err := d.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the controller of dispatchers: %w", err)
	}
	err = (&deliveriesapi.Reconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Allowed: o.DeliveriesAPI, Home: o.Namespace, Scoped: scope != nil,
		Timing: o.DeliveriesTiming, Dial: o.DialDeliveries,
	}).SetupWithManager(mgr)
	if err != nil {
		return fmt.Errorf("add the controller of the deliveries API: %w", err)
	}
	if err := addStatuses(mgr, o, tables); err != nil {
		return err
	}
	if !o.CreateDefaultDispatcher {
		return nil
	}
	err = mgr.Add(&dispatcher.Default{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Namespace: o.DefaultDispatcherNamespace, Alone: scope != nil})
	if err != nil {
		return fmt.Errorf("add the default dispatcher: %w", err)
	}
	return nil
}

// addScope adds what waits for namespaces to be granted, and returns what knows the manager's.
func addScope(mgr ctrl.Manager, scope *scope) (subscription.Namespaces, error) {
	if scope == nil {
		return subscription.WatchedNamespaces{Client: mgr.GetClient()}, nil
	}
	if err := mgr.Add(scope); err != nil {
		return nil, fmt.Errorf("add what waits for namespaces to be granted: %w", err)
	}
	return subscription.NewPolledNamespaces(mgr.GetAPIReader()), nil
}

// addStatuses adds what makes subscriptions follow their dispatchers, and what announces changes.
func addStatuses(mgr ctrl.Manager, o Options, tables *routes.Tables) error {
	marks := &subscription.Marks{Client: mgr.GetClient(), Review: &tables.Review, Now: time.Now}
	if err := marks.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the controller of availability: %w", err)
	}
	err := mgr.Add(&announce.Announcer{Cache: mgr.GetCache(), Recorder: mgr.GetEventRecorder(leaseName), Logger: o.Logger.WithName("announce"), Now: time.Now})
	if err != nil {
		return fmt.Errorf("add what announces changes: %w", err)
	}
	return nil
}

// addChecks makes the manager alive once it serves, and ready once its caches hold what the API server has.
func addChecks(mgr ctrl.Manager) error {
	err := errors.Join(
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("caches", func(req *http.Request) error {
			if !mgr.GetCache().WaitForCacheSync(req.Context()) {
				return errors.New("the caches are not synced yet")
			}
			return nil
		}),
	)
	if err != nil {
		return fmt.Errorf("add the health checks: %w", err)
	}
	return nil
}
