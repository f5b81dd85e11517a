package replay

import (
	"context"
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// cached has subscriptions, and is behind in all else. server has a replay as it is. What they are not asked for panics.
type (
	cached struct {
		client.Client
		subscriptions []v1alpha1.WebhookSubscription
	}
	server struct {
		client.Reader
		replay *v1alpha1.WebhookReplay
	}
)

func (c cached) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	into.(*v1alpha1.WebhookSubscriptionList).Items = c.subscriptions
	return nil
}

func (s server) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	s.replay.DeepCopyInto(into.(*v1alpha1.WebhookReplay))
	return nil
}

// TestChosenOnce: what was selected before stays, also while the cache does not show it yet; another replay of the name is not this one.
func TestChosenOnce(t *testing.T) {
	t.Parallel()
	now := v1alpha1.WebhookSubscription{}
	now.Name, now.Spec.DispatcherRef = "billing", v1alpha1.DispatcherReference{Namespace: "eventflow-system", Name: "default"}
	before := []v1alpha1.ReplaySubscription{{Name: "another", Dispatcher: "eventflow-system/default"}}
	for name, test := range map[string]struct {
		stands  []v1alpha1.ReplaySubscription
		uid     string
		want    string
		wantErr bool
	}{
		"nothing was selected": {nil, "a", "billing", false},
		"something was":        {before, "a", "another", false},
		"a namesake":           {nil, "b", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replay := &v1alpha1.WebhookReplay{Spec: v1alpha1.WebhookReplaySpec{SubscriptionRef: v1alpha1.SubscriptionReference{Name: "billing"}}}
			replay.UID = "a"
			stands := replay.DeepCopy()
			stands.UID, stands.Status.Subscriptions = "a", test.stands
			if test.uid != "a" {
				stands.UID = "b"
			}
			r := &Reconciler{Client: cached{subscriptions: []v1alpha1.WebhookSubscription{now}}, Reader: server{replay: stands}}
			o := &observation{replay: replay}
			err := r.choose(t.Context(), o)
			if (err != nil) != test.wantErr {
				t.Fatal(err)
			}
			if err == nil && !slices.ContainsFunc(o.subscriptions, func(s v1alpha1.ReplaySubscription) bool { return s.Name == test.want }) {
				t.Errorf("selected are %v, want %s", o.subscriptions, test.want)
			}
		})
	}
}
