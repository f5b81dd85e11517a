package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

// storePause is how often the store is asked whether it takes events.
const storePause = 2 * time.Second

// StoreReporter tells in a WebhookDispatcher's status whether its store takes events: the condition StoreReady.
type StoreReporter struct {
	dispatcher dynamic.ResourceInterface
	name       string
	logger     logr.Logger
	written    string // the reason that was written last
	// usage returns the tenants that use most; nil if nobody knows. shown is what of it was written last, and showAt when it
	// may be written again.
	usage  func() []v1alpha1.TenantUsage
	shown  []v1alpha1.TenantUsage
	showAt time.Time
}

// usagePause is how often a change of the tenants' usage is written at most.
const usagePause = time.Minute

// ShowUsage makes the reporter write what usage returns, too: the tenants that use most. It is called before Run.
func (r *StoreReporter) ShowUsage(usage func() []v1alpha1.TenantUsage) { r.usage = usage }

// NewStoreReporter returns the reporter of the WebhookDispatcher with the given name.
func NewStoreReporter(config *rest.Config, namespace, name string, logger logr.Logger) (*StoreReporter, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for statuses: %w", err)
	}
	dispatchers := client.Resource(v1alpha1.GroupVersion.WithResource("webhookdispatchers"))
	return &StoreReporter{dispatcher: dispatchers.Namespace(namespace), name: name, logger: logger}, nil
}

// Run reports what ready says, each time it changes, until ctx ends.
func (r *StoreReporter) Run(ctx context.Context, ready func() error) {
	tick := time.NewTicker(storePause)
	defer tick.Stop()
	for {
		r.Report(ctx, ready())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Report writes what follows from err, an error of opening the store or of Ready, if it differs from what was written.
func (r *StoreReporter) Report(ctx context.Context, err error) {
	wanted := storeReady(err)
	usage := r.shown
	if r.usage != nil && !time.Now().Before(r.showAt) {
		usage = r.usage()
	}
	if errors.Is(err, store.ErrClosed) || wanted.Reason == r.written && slices.Equal(usage, r.shown) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := r.write(ctx, wanted, usage); err != nil {
		r.logger.V(1).Info("Writing the dispatcher's status failed; trying again", "error", err.Error())
		return
	}
	r.written = wanted.Reason
	if !slices.Equal(usage, r.shown) {
		r.shown, r.showAt = usage, time.Now().Add(usagePause)
	}
}

func (r *StoreReporter) write(ctx context.Context, wanted metav1.Condition, usage []v1alpha1.TenantUsage) error {
	object, err := r.dispatcher.Get(ctx, r.name, metav1.GetOptions{}, "status")
	if err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	var before v1alpha1.WebhookDispatcher
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &before); err != nil {
		return fmt.Errorf("decode the dispatcher: %w", err)
	}
	wanted.ObservedGeneration = before.Generation
	conditions := []metav1.Condition{wanted}
	carryTransitions(conditions, before.Status.Conditions, time.Now())
	stands := meta.FindStatusCondition(before.Status.Conditions, wanted.Type)
	if stands != nil && sameConditions([]metav1.Condition{*stands}, conditions) && slices.Equal(before.Status.LargestTenants, usage) {
		return nil // as after a restart
	}
	status := map[string]any{"conditions": conditions}
	if len(usage) > 0 {
		status["largestTenants"] = usage
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "WebhookDispatcher",
		"metadata": map[string]string{"name": r.name},
		"status":   status,
	})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	force := true
	_, err = r.dispatcher.Patch(ctx, r.name, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: FieldOwner, Force: &force}, "status")
	if err != nil {
		return fmt.Errorf("apply the status: %w", err)
	}
	return nil
}

// storeReady is the condition that follows from an error of the store. It shows nothing of the error: a driver's may
// name what a connection string holds.
func storeReady(err error) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionStoreReady, Status: metav1.ConditionFalse}
	switch {
	case err == nil:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonStoreReady, "The store takes events"
	case errors.Is(err, store.ErrFull):
		c.Reason, c.Message = v1alpha1.ReasonStoreFull, "Too little space is left; events are refused until there is more: grow the volume, or shorten the retention"
	case errors.Is(err, store.ErrReadOnly):
		c.Reason, c.Message = v1alpha1.ReasonStoreReadOnly, "The database takes no writes: it is a standby, or was made read-only; events are refused until it takes them"
	case errors.Is(err, postgres.ErrTooOld):
		c.Reason, c.Message = v1alpha1.ReasonDatabaseTooOld, "The database server is too old: want PostgreSQL 15 or newer"
	case errors.Is(err, postgres.ErrNewerSchema):
		c.Reason, c.Message = v1alpha1.ReasonSchemaNewer, "A newer Event Flow has migrated the database: run that version"
	case errors.Is(err, postgres.ErrNotMigrated):
		c.Reason, c.Message = v1alpha1.ReasonSchemaNotMigrated, "The database's schema could not be made or brought up to date; its user may lack the right to create tables: see the dispatcher's log"
	default:
		c.Reason, c.Message = v1alpha1.ReasonDatabaseUnreachable, "The store does not answer; publishes get 503 until it does: see the dispatcher's log"
	}
	return c
}
