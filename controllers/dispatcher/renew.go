package dispatcher

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// A volume that never held an event gives way to another (docs/adr/0007-an-unused-store-gives-way.md). The dispatcher
// makes the store Used before it accepts the first event, the manager makes it Abandoned before it deletes the volume, and
// each writes over Unused alone: the API server lets one of them win.

// noted begins the id of a store that no pod has seen.
const noted = "claim-"

// renewalAwaited is how often a volume that is being deleted is looked at; its end is watched, too.
const renewalAwaited = 10 * time.Second

// renew replaces a volume that never held an event and is not what the spec says. o.renewing is set until it is gone.
func (r *Reconciler) renew(ctx context.Context, o *observation) error {
	claim, err := r.embeddedClaim(ctx, o)
	if err != nil {
		return err
	}
	switch next := renewal(o.dispatcher, claim); next {
	case renewNothing:
		return nil
	case renewNote:
		return r.setUse(ctx, o.dispatcher, v1alpha1.VolumeStatus{ID: noted + string(claim.UID), Use: v1alpha1.StoreUnused})
	case renewAbandon:
		log.FromContext(ctx).Info("replacing a volume that never held an event", "claim", claim.Name)
		use := v1alpha1.VolumeStatus{ID: o.dispatcher.Status.Volume.ID, Use: v1alpha1.StoreAbandoned}
		if err := r.setUse(ctx, o.dispatcher, use); err != nil {
			return err
		}
		o.renewing = true
		return r.abandon(ctx, o, claim)
	case renewAwait:
		o.renewing = true
		return r.abandon(ctx, o, claim)
	default: // renewForget
		return r.setUse(ctx, o.dispatcher, v1alpha1.VolumeStatus{})
	}
}

// The steps of replacing a volume.
const (
	renewNothing = iota
	renewNote    // say that the store is unused: no pod has seen it
	renewAbandon // say that the store is abandoned, then as renewAwait
	renewAwait   // delete the claim and the pods that use it
	renewForget  // the claim is gone: say nothing of the store any more
)

// renewal tells what comes next for a dispatcher whose embedded store has the given claim, nil if there is none.
func renewal(d *v1alpha1.WebhookDispatcher, claim *corev1.PersistentVolumeClaim) int {
	use := d.Status.Volume.Use
	// A volume that was bound after the manager noted that there is none may be an old one.
	surprise := strings.HasPrefix(d.Status.Volume.ID, noted) && claim != nil && claim.Spec.VolumeName != ""
	switch {
	case use == v1alpha1.StoreAbandoned && claim == nil:
		return renewForget
	case use == v1alpha1.StoreAbandoned && surprise && claim.DeletionTimestamp.IsZero():
		return renewNote
	case use == v1alpha1.StoreAbandoned:
		return renewAwait
	case claim == nil || !claim.DeletionTimestamp.IsZero():
		return renewNothing
	case use == "" && claim.Spec.VolumeName == "" && d.Spec.Store.Postgres == nil:
		return renewNote
	case surprise: // a pod may have it by now, and has not said so yet
		return renewNothing
	case use == v1alpha1.StoreUnused && outdated(d, claim):
		return renewAbandon
	default:
		return renewNothing
	}
}

// outdated reports whether a claim is not what the spec says, and cannot become it.
func outdated(d *v1alpha1.WebhookDispatcher, claim *corev1.PersistentVolumeClaim) bool {
	if d.Spec.Store.Postgres != nil {
		return true
	}
	size, class := wantedStore(d)
	if size.Cmp(claimSize(claim)) < 0 || accessMode(d) != accessModeOf(claim) {
		return true
	}
	if size.Cmp(claimSize(claim)) > 0 && claim.Spec.VolumeName == "" { // it cannot grow before there is a volume
		return true
	}
	return class != "" && (claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != class)
}

// embeddedClaim is the claim of a dispatcher's embedded store; of one with a database only if it had a volume before.
func (r *Reconciler) embeddedClaim(ctx context.Context, o *observation) (*corev1.PersistentVolumeClaim, error) {
	d := o.dispatcher
	if d.Spec.Store.Postgres == nil || d.Status.Volume.Use == "" {
		return o.claim, nil
	}
	claim := &corev1.PersistentVolumeClaim{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: names.Claim(d.Name)}, claim)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get claim: %w", err)
	}
	return claim, nil
}

// abandon deletes a claim and the Deployment whose pods hold it. Kubernetes keeps the claim until they are gone.
func (r *Reconciler) abandon(ctx context.Context, o *observation, claim *corev1.PersistentVolumeClaim) error {
	if o.deployment != nil && o.deployment.DeletionTimestamp.IsZero() {
		err := r.Client.Delete(ctx, o.deployment, client.Preconditions{UID: &o.deployment.UID}, client.PropagationPolicy("Background"))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete the deployment of a store that gives way: %w", err)
		}
	}
	if !claim.DeletionTimestamp.IsZero() {
		return nil
	}
	only := client.Preconditions{UID: &claim.UID}
	if claim.Spec.VolumeName == "" { // and still none
		only.ResourceVersion = &claim.ResourceVersion
	}
	if err := r.Client.Delete(ctx, claim, only); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete the claim of a store that gives way: %w", err)
	}
	return nil
}

// setUse writes what is known of the store, if the dispatcher is still as it was read.
func (r *Reconciler) setUse(ctx context.Context, d *v1alpha1.WebhookDispatcher, use v1alpha1.VolumeStatus) error {
	var store any = use
	if use == (v1alpha1.VolumeStatus{}) {
		store = nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": d.UID, "resourceVersion": d.ResourceVersion},
		"status":   map[string]any{"volume": store},
	})
	if err != nil {
		return fmt.Errorf("encode the use of a store: %w", err)
	}
	written := d.DeepCopy()
	if err := r.Client.Status().Patch(ctx, written, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(names.FieldOwner)); err != nil {
		return fmt.Errorf("say how a store is used: %w", err)
	}
	written.DeepCopyInto(d)
	return nil
}

// storeBeingRenewed holds while the volume is replaced.
func storeBeingRenewed(o observation) (reason, message string, failed bool) {
	return v1alpha1.ReasonPending, "the volume, which never held an event, is being replaced as spec.store says", o.renewing
}

// storeKindChanged holds if a volume has events on it, and the spec names a database.
func storeKindChanged(o observation) (reason, message string, failed bool) {
	return v1alpha1.ReasonStoreImmutable, fmt.Sprintf("spec.store is a database now, but events are kept on PersistentVolumeClaim %s: set spec.store back to embedded, and create another WebhookDispatcher with the database",
		names.Claim(o.dispatcher.Name)), keepsVolume(o.dispatcher)
}

// keepsVolume reports whether the pods go on as they are, because their events are not in the store that the spec names.
func keepsVolume(d *v1alpha1.WebhookDispatcher) bool {
	return d.Spec.Store.Postgres != nil && d.Status.Volume.Use == v1alpha1.StoreUsed
}
