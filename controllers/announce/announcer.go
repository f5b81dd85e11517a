package announce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	crcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create,roleName=eventflow-tenant-namespace

var announced = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "eventflow_announcements_total",
	Help: "Kubernetes Events of subscriptions and dispatchers: recorded, or suppressed because the same was said within ten minutes, or too much at once.",
}, []string{"result"})

func init() {
	metrics.Registry.MustRegister(announced)
	for _, result := range []string{"recorded", "suppressed"} { // there from the start, so that a rate can be taken of it
		announced.WithLabelValues(result)
	}
}

// Announcer says what changes. One manager of several does.
type Announcer struct {
	// Cache tells of changes.
	Cache crcache.Cache
	// Recorder takes Events. It does not block.
	Recorder events.EventRecorder
	// Logger takes lines.
	Logger logr.Logger
	// Now is the clock.
	Now func() time.Time

	limit *limit
}

// NeedLeaderElection makes one manager of several do it.
func (a *Announcer) NeedLeaderElection() bool { return true }

// Start announces until ctx ends.
func (a *Announcer) Start(ctx context.Context) error {
	a.limit = newLimit()
	stop := func() {}
	for _, watched := range []struct {
		object client.Object
		update func(before, after any)
	}{
		{&v1alpha1.WebhookSubscription{}, func(before, after any) {
			if before, after, ok := both[*v1alpha1.WebhookSubscription](before, after); ok {
				a.say(after, OfSubscription(before, after))
			}
		}},
		{&v1alpha1.WebhookDispatcher{}, func(before, after any) {
			if before, after, ok := both[*v1alpha1.WebhookDispatcher](before, after); ok {
				a.say(after, OfDispatcher(before, after))
			}
		}},
	} {
		informer, err := a.Cache.GetInformer(ctx, watched.object)
		if err != nil {
			return errors.Join(fmt.Errorf("watch what is announced: %w", err), ctx.Err())
		}
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: watched.update})
		if err != nil {
			return fmt.Errorf("watch what is announced: %w", err)
		}
		before := stop
		stop = func() {
			_ = informer.RemoveEventHandler(registration) // nothing of it is left but a handler that says nothing
			before()
		}
	}
	<-ctx.Done()
	stop()
	return nil
}

// both are the versions of one object, if they are of the wanted kind.
func both[T client.Object](before, after any) (T, T, bool) {
	b, isBefore := before.(T)
	c, isAfter := after.(T)
	return b, c, isBefore && isAfter && b.GetUID() == c.GetUID()
}

func (a *Announcer) say(object client.Object, all []Event) {
	for _, e := range all {
		if !a.limit.allows(object.GetNamespace(), object.GetUID(), e.Reason, a.Now()) {
			announced.WithLabelValues("suppressed").Inc()
			continue
		}
		announced.WithLabelValues("recorded").Inc()
		a.Logger.Info("A status changed", "object", fmt.Sprintf("%T", object), "namespace", object.GetNamespace(), "name", object.GetName(), "event", e.Reason, "note", e.Note)
		a.Recorder.Eventf(object, nil, e.Type, e.Reason, "Observe", "%s", e.Note)
	}
}
