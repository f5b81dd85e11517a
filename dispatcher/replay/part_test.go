package replay

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

var created = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

func TestPartOf(t *testing.T) {
	t.Parallel()
	both := []v1alpha1.ReplaySubscription{{Name: "a", Dispatcher: dispatcher}, {Name: "b", Dispatcher: "other/default"}, {Name: "c", Dispatcher: dispatcher}}
	early, late := created.Add(-2*time.Hour), created.Add(-time.Hour)
	for name, test := range map[string]struct {
		spec      v1alpha1.WebhookReplaySpec
		status    v1alpha1.WebhookReplayStatus
		deleted   bool
		wantOpen  bool
		wantNames []string
		wantRate  float64
		wantBatch query.Batch
	}{
		"nothing is selected yet":       {},
		"of another dispatcher":         {status: v1alpha1.WebhookReplayStatus{Subscriptions: both[1:2]}},
		"on its way out":                {status: v1alpha1.WebhookReplayStatus{Subscriptions: both}, deleted: true},
		"finished":                      {status: v1alpha1.WebhookReplayStatus{Subscriptions: both[:1], Dispatchers: []v1alpha1.ReplayProgress{{Name: dispatcher, State: v1alpha1.ReplayFinished}}}, wantNames: []string{"a"}, wantRate: 50, wantBatch: query.Batch{Until: created.Add(time.Second)}},
		"another one is finished":       {status: v1alpha1.WebhookReplayStatus{Subscriptions: both, Dispatchers: []v1alpha1.ReplayProgress{{Name: "other/default", State: v1alpha1.ReplayFinished}}}, wantOpen: true, wantNames: []string{"a", "c"}, wantRate: 25, wantBatch: query.Batch{Until: created.Add(time.Second)}},
		"half done":                     {status: v1alpha1.WebhookReplayStatus{Subscriptions: both, Dispatchers: []v1alpha1.ReplayProgress{{Name: dispatcher, State: v1alpha1.ReplayRunning, Subscription: "c"}}}, wantOpen: true, wantNames: []string{"c"}, wantRate: 25, wantBatch: query.Batch{Until: created.Add(time.Second)}},
		"the action, and all else":      {spec: v1alpha1.WebhookReplaySpec{Action: v1alpha1.ActionReplay, State: v1alpha1.ReplayCancelled, Since: ptr.To(metav1.NewTime(early)), Until: ptr.To(metav1.NewTime(late)), RatePerSecond: 7}, status: v1alpha1.WebhookReplayStatus{Subscriptions: both[:1]}, wantOpen: true, wantNames: []string{"a"}, wantRate: 7, wantBatch: query.Batch{State: delivery.Cancelled, Since: early, Until: late}},
		"until later than its creation": {spec: v1alpha1.WebhookReplaySpec{Until: ptr.To(metav1.NewTime(created.Add(time.Hour)))}, status: v1alpha1.WebhookReplayStatus{Subscriptions: both[:1]}, wantOpen: true, wantNames: []string{"a"}, wantRate: 50, wantBatch: query.Batch{Until: created.Add(time.Second)}},
		"cancel":                        {spec: v1alpha1.WebhookReplaySpec{Action: v1alpha1.ActionCancel}, status: v1alpha1.WebhookReplayStatus{Subscriptions: both[:1]}, wantOpen: true, wantNames: []string{"a"}, wantRate: 50, wantBatch: query.Batch{Cancel: true, Until: created.Add(time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &v1alpha1.WebhookReplay{Spec: test.spec, Status: test.status}
			r.CreationTimestamp = metav1.NewTime(created)
			if test.deleted {
				r.DeletionTimestamp = &r.CreationTimestamp
			}
			p, open := partOf(r, dispatcher)
			var left []string
			if len(p.subscriptions) > 0 {
				left = p.left()
			}
			if open != test.wantOpen || p.rate != test.wantRate || !cmp.Equal(left, test.wantNames) || p.batch != test.wantBatch {
				t.Errorf("open %v, rate %v, left %v, %+v", open, p.rate, left, p.batch)
			}
		})
	}
}

// TestChunks: pages and chunks are small where the rate is, and bounded where it is not.
func TestChunks(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64][2]int{0.5: {1, 1}, 1: {2, 1}, 50: {100, 12}, 1000: {500, 32}} {
		p := part{rate: rate}
		if p.page() != want[0] || p.chunk() != want[1] {
			t.Errorf("%v a second: page %d, chunk %d, want %v", rate, p.page(), p.chunk(), want)
		}
	}
}

// TestKnownIsBounded: of each namespace the oldest are known, and a list follows once there is room.
func TestKnownIsBounded(t *testing.T) {
	t.Parallel()
	k := newKnown(dispatcher)
	put := func(namespace, name string, age time.Duration) {
		r := &v1alpha1.WebhookReplay{Status: v1alpha1.WebhookReplayStatus{Subscriptions: []v1alpha1.ReplaySubscription{{Name: "a", Dispatcher: dispatcher}}}}
		r.Namespace, r.Name, r.UID, r.CreationTimestamp = namespace, name, types.UID(name), metav1.NewTime(created.Add(-age))
		k.put(r)
	}
	for i := range 100 {
		put("clinic-a", fmt.Sprint(i), time.Duration(i)*time.Minute)
	}
	put("clinic-b", "one", 0)
	if n := len(k.namespaces["clinic-a"]); n != maxOfNamespace {
		t.Errorf("%d of a namespace are known", n)
	}
	if _, ok := k.namespaces["clinic-b"]["one"]; !ok {
		t.Error("another namespace's is not known")
	}
	if next := k.next(map[string]bool{"clinic-b": true}); len(next) != 1 || next[0].name != "99" {
		t.Errorf("next are %+v, want the oldest", next)
	}
	for i := range 100 {
		if i >= 68 && i < 90 { // 22 of those that are known
			k.drop("clinic-a", fmt.Sprint(i))
		}
	}
	if !k.incomplete() {
		t.Error("there is room, and no list follows")
	}
	for i := range 2 * maxNamespaces {
		put(fmt.Sprint("n-", i), "one", 0)
	}
	if len(k.namespaces) != maxNamespaces {
		t.Errorf("%d namespaces are known", len(k.namespaces))
	}
}
