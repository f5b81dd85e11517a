package dispatcher

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestRenewal goes through all that a store can be. No line may delete a volume that may hold an event.
func TestRenewal(t *testing.T) {
	t.Parallel()
	const pod = "of-the-pod"
	smaller := v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("1Gi")}}
	same := v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("10Gi")}}
	larger := v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("20Gi")}}
	class := v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{StorageClassName: "fast"}}
	mode := v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{AccessMode: "ReadWriteOnce"}}
	database := v1alpha1.Store{Postgres: &v1alpha1.PostgresStore{}}
	for name, tt := range map[string]struct {
		spec                     v1alpha1.Store
		use                      v1alpha1.StoreUse
		id                       string
		none, unbound, goingAway bool
		want                     int
	}{
		"nothing there":                  {spec: same, none: true, want: renewNothing},
		"as it is":                       {spec: same, use: v1alpha1.StoreUnused, want: renewNothing},
		"it can grow":                    {spec: larger, use: v1alpha1.StoreUnused, want: renewNothing},
		"unused, smaller":                {spec: smaller, use: v1alpha1.StoreUnused, want: renewAbandon},
		"unused, another class":          {spec: class, use: v1alpha1.StoreUnused, want: renewAbandon},
		"unused, another mode":           {spec: mode, use: v1alpha1.StoreUnused, want: renewAbandon},
		"unused, a database":             {spec: database, use: v1alpha1.StoreUnused, want: renewAbandon},
		"used, smaller":                  {spec: smaller, use: v1alpha1.StoreUsed, want: renewNothing},
		"used, another class":            {spec: class, use: v1alpha1.StoreUsed, want: renewNothing},
		"used, a database":               {spec: database, use: v1alpha1.StoreUsed, want: renewNothing},
		"used, unbound":                  {spec: smaller, use: v1alpha1.StoreUsed, unbound: true, want: renewNothing},
		"nobody knows, smaller":          {spec: smaller, want: renewNothing},
		"never bound":                    {spec: smaller, unbound: true, want: renewNote},
		"never bound, noted":             {spec: smaller, use: v1alpha1.StoreUnused, id: noted + "1", unbound: true, want: renewAbandon},
		"never bound, cannot grow":       {spec: larger, use: v1alpha1.StoreUnused, id: noted + "1", unbound: true, want: renewAbandon},
		"bound, and the pod said nought": {spec: smaller, use: v1alpha1.StoreUnused, id: noted + "1", want: renewNothing},
		"database that never had one":    {spec: database, unbound: true, want: renewNothing},
		"already being deleted":          {spec: smaller, use: v1alpha1.StoreUnused, goingAway: true, want: renewNothing},
		"abandoned":                      {spec: smaller, use: v1alpha1.StoreAbandoned, want: renewAwait},
		"abandoned, spec set back":       {spec: same, use: v1alpha1.StoreAbandoned, want: renewAwait},
		"abandoned, being deleted":       {spec: smaller, use: v1alpha1.StoreAbandoned, goingAway: true, want: renewAwait},
		"abandoned, then bound":          {spec: smaller, use: v1alpha1.StoreAbandoned, id: noted + "1", want: renewNote},
		"abandoned and gone":             {spec: smaller, use: v1alpha1.StoreAbandoned, none: true, want: renewForget},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &v1alpha1.WebhookDispatcher{Spec: v1alpha1.WebhookDispatcherSpec{Store: tt.spec}}
			if tt.use != "" {
				d.Status.Volume = v1alpha1.VolumeStatus{ID: pod, Use: tt.use}
			}
			if tt.id != "" {
				d.Status.Volume.ID = tt.id
			}
			claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
				VolumeName:       "pv",
				StorageClassName: ptr.To("slow"),
				AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
				Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}},
			}}
			if tt.unbound {
				claim.Spec.VolumeName = ""
			}
			if tt.goingAway {
				claim.DeletionTimestamp = ptr.To(metav1.NewTime(time.Unix(1, 0)))
			}
			if tt.none {
				claim = nil
			}
			if got := renewal(d, claim); got != tt.want {
				t.Errorf("want step %d, got %d", tt.want, got)
			}
		})
	}
}
