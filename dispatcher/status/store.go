package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

const (
	// storePause is how often the store is asked whether it takes events.
	storePause = 2 * time.Second
	// lookPause is how often the writer checks that what it wrote still stands. Pods share one status, and the last word in it
	// may be that of a pod that is gone.
	lookPause = time.Minute
)

// StoreReporter says in a WebhookDispatcher's status which version runs, by which revision of the routing table, and whether its
// store takes events. The manager makes conditions of that: it knows whether there is still a pod that stands by it.
type StoreReporter struct {
	dispatcher dynamic.ResourceInterface
	name       string
	logger     logr.Logger
	version    string
	written    string // the reason that was written last
	// usage returns the tenants that use most; nil if nobody knows. shown is what of it was written last, and showAt when it
	// may be written again.
	usage  func() []v1alpha1.TenantUsage
	shown  []v1alpha1.TenantUsage
	showAt time.Time
	// settings returns the generation of the settings in force, 0 if that is not known; nil if nobody knows. inForce is what of
	// it was written last.
	settings func() int64
	inForce  int64
	// revision returns that of the table that every pod works by, 0 if that is not known, or another pod's to say; nil if the
	// manager does not go by it. inUse is what of it was written last.
	revision func() int64
	inUse    int64
	wake     chan struct{} // the revision changed
	lookAt   time.Time     // when the status is read next
	adopted  bool          // what stood at the start was looked at
}

// maxVersion bounds the version that is written, as the schema does.
const maxVersion = 128

// usagePause is how often a change of the tenants' usage is written at most.
const usagePause = time.Minute

// ShowUsage makes the reporter write what usage returns, too: the tenants that use most. It is called before Run.
func (r *StoreReporter) ShowUsage(usage func() []v1alpha1.TenantUsage) { r.usage = usage }

// ShowVersion makes the reporter write the version of Event Flow that this process is of. It is called before Run and Report.
func (r *StoreReporter) ShowVersion(version string) { r.version = version }

// ShowSettings makes the reporter write the generation of the settings in force, too, once it is not 0. It is called before
// Run.
func (r *StoreReporter) ShowSettings(generation func() int64) { r.settings = generation }

// ShowRevision makes the reporter write the revision of the routing table in use, too, while it is not 0: of the pods that share a
// store, one says it. It is called before Run and Report.
func (r *StoreReporter) ShowRevision(revision func() int64) { r.revision = revision }

// Wake makes Run report now: there may be news of what ShowRevision shows. It never blocks.
func (r *StoreReporter) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// NewStoreReporter returns the reporter of the WebhookDispatcher with the given name.
func NewStoreReporter(config *rest.Config, namespace, name string, logger logr.Logger) (*StoreReporter, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for statuses: %w", err)
	}
	dispatchers := client.Resource(v1alpha1.GroupVersion.WithResource("webhookdispatchers"))
	return &StoreReporter{dispatcher: dispatchers.Namespace(namespace), name: name, logger: logger, wake: make(chan struct{}, 1)}, nil
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
		case <-r.wake:
		}
	}
}

// Report writes what follows from err, an error of opening the store or of Ready, if it differs from what was written.
func (r *StoreReporter) Report(ctx context.Context, err error) {
	r.adopt(ctx)
	reason := storeReason(err)
	usage := r.shown
	if r.usage != nil && !time.Now().Before(r.showAt) {
		usage = r.usage()
	}
	inForce := r.inForce
	if r.settings != nil {
		inForce = cmp.Or(r.settings(), inForce) // not known for a moment, when a dispatcher that shares the store starts
	}
	inUse := int64(0)
	if r.revision != nil {
		inUse = r.revision()
	}
	written := reason == r.written && slices.Equal(usage, r.shown) && inForce == r.inForce && (inUse == 0 || inUse == r.inUse)
	if errors.Is(err, store.ErrClosed) || written && time.Now().Before(r.lookAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	wanted := report{reason: reason, usage: usage, inForce: inForce, inUse: inUse}
	if err := r.bring(ctx, &wanted, written); err != nil {
		r.logger.V(1).Info("Writing the dispatcher's status failed; trying again", "error", err.Error())
		return
	}
	if reason != r.written {
		r.logger.Info("The state of the store changed", "state", reason)
	}
	r.written, r.inForce, r.inUse = reason, wanted.inForce, wanted.inUse
	if !slices.Equal(usage, r.shown) {
		r.shown, r.showAt = usage, time.Now().Add(usagePause)
	}
}

// adopt takes what stands at the start, by a process of the same version, for what was written: a restart that changes nothing
// writes nothing.
func (r *StoreReporter) adopt(ctx context.Context) {
	if r.adopted {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	found, err := r.read(ctx)
	if err != nil { // it is written anyway, and tried again then
		return
	}
	r.adopted = true
	if found.Version != r.shownVersion() || found.Store.Reason == "" || r.revision == nil && found.ProgrammedRevision != 0 {
		return
	}
	now := time.Now()
	r.written, r.inForce, r.inUse, r.shown = found.Store.Reason, found.SettingsGeneration, found.ProgrammedRevision, found.LargestTenants
	r.lookAt, r.showAt = now.Add(lookPause), now.Add(usagePause) // by then the tenants' usage is counted
}

// read returns the status that stands.
func (r *StoreReporter) read(ctx context.Context) (v1alpha1.WebhookDispatcherStatus, error) {
	object, err := r.dispatcher.Get(ctx, r.name, metav1.GetOptions{}, "status")
	if err != nil {
		return v1alpha1.WebhookDispatcherStatus{}, fmt.Errorf("read the status: %w", err)
	}
	var found v1alpha1.WebhookDispatcher
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &found); err != nil {
		return v1alpha1.WebhookDispatcherStatus{}, fmt.Errorf("decode the dispatcher: %w", err)
	}
	return found.Status, nil
}

// report is what a status is to say.
type report struct {
	reason         string
	usage          []v1alpha1.TenantUsage
	inForce, inUse int64 // generation of the settings, revision of the table
}

// bring makes the status say what it is to say, and fills in what it then has. What was written already is written again only if
// it does not stand. A generation or a revision that is not known stays as it is: an apply that leaves it out would take it from
// the other pods, which share the field owner.
func (r *StoreReporter) bring(ctx context.Context, wanted *report, written bool) error {
	if written || wanted.inForce == 0 || wanted.inUse == 0 && r.revision != nil {
		now, err := r.read(ctx)
		if err != nil {
			return err
		}
		wanted.inForce = cmp.Or(wanted.inForce, now.SettingsGeneration)
		if r.revision != nil {
			wanted.inUse = cmp.Or(wanted.inUse, now.ProgrammedRevision)
		}
		r.lookAt = time.Now().Add(lookPause)
		if written && now.Store.Reason == wanted.reason && now.SettingsGeneration == wanted.inForce && now.Version == r.shownVersion() && now.ProgrammedRevision == wanted.inUse {
			return nil
		}
	}
	if err := r.write(ctx, *wanted); err != nil {
		return err
	}
	r.lookAt = time.Now().Add(lookPause)
	return nil
}

// shownVersion is the version as it is written.
func (r *StoreReporter) shownVersion() string { return r.version[:min(len(r.version), maxVersion)] }

func (r *StoreReporter) write(ctx context.Context, wanted report) error {
	status := map[string]any{"store": v1alpha1.StoreReport{Reason: wanted.reason}}
	if version := r.shownVersion(); version != "" {
		status["version"] = version
	}
	if len(wanted.usage) > 0 {
		status["largestTenants"] = wanted.usage
	}
	if wanted.inForce > 0 {
		status["settingsGeneration"] = wanted.inForce
	}
	if wanted.inUse > 0 {
		status["programmedRevision"] = wanted.inUse
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

// storeReason is the one word that is said of an error of the store. It shows nothing of the error: a driver's may name what
// a connection string holds.
func storeReason(err error) string {
	for _, known := range []struct {
		err    error
		reason string
	}{
		{store.ErrFull, v1alpha1.ReasonStoreFull},
		{store.ErrReadOnly, v1alpha1.ReasonStoreReadOnly},
		{store.ErrLocked, v1alpha1.ReasonStoreLocked},
		{store.ErrNewer, v1alpha1.ReasonStoreNewer},
		{store.ErrDamaged, v1alpha1.ReasonStoreDamaged},
		{store.ErrNotOpen, v1alpha1.ReasonStoreNotOpen},
		{postgres.ErrTooOld, v1alpha1.ReasonDatabaseTooOld},
		{postgres.ErrNewerSchema, v1alpha1.ReasonSchemaNewer},
		{postgres.ErrNotMigrated, v1alpha1.ReasonSchemaNotMigrated},
	} {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	if err == nil {
		return v1alpha1.ReasonStoreReady
	}
	return v1alpha1.ReasonDatabaseUnreachable
}
