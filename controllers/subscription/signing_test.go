package subscription

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestSigning: a key is shown once every pod signs with it, keeps its time wherever the spec names it, and goes when no key signs.
func TestSigning(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 9, 15, 0, 999, time.UTC)
	long := metav1.NewTime(now.Add(-time.Hour).Truncate(time.Second))
	fresh := metav1.NewTime(now.Truncate(time.Second))
	key := func(id string, since metav1.Time) v1alpha1.SigningKey {
		return v1alpha1.SigningKey{ID: id, Scheme: v1alpha1.SchemeShared, SinceTime: since}
	}
	none := metav1.Time{}
	type keys = []v1alpha1.SigningKey
	for name, test := range map[string]struct {
		said      keys
		has       keys // the table
		takeover  routes.Takeover
		rejected  bool
		silent    bool // the dispatcher does not say how far it is
		ownerless bool
		want      keys
	}{
		"new, and awaited":                {nil, keys{key("a", none)}, routes.Takeover{Awaited: true, Values: true}, false, false, false, nil},
		"taken over":                      {nil, keys{key("a", none)}, routes.Takeover{}, false, false, false, keys{key("a", fresh)}},
		"as it was":                       {keys{key("a", long)}, keys{key("a", none)}, routes.Takeover{}, false, false, false, keys{key("a", long)}},
		"another key beside":              {keys{key("a", long)}, keys{key("a", none), key("b", none)}, routes.Takeover{}, false, false, false, keys{key("a", long), key("b", fresh)}},
		"in another order":                {keys{key("a", long), key("b", fresh)}, keys{key("b", none), key("a", none)}, routes.Takeover{}, false, false, false, keys{key("b", fresh), key("a", long)}},
		"a Secret changed, and awaited":   {keys{key("a", long)}, keys{key("b", none)}, routes.Takeover{Values: true}, false, false, false, keys{key("a", long)}},
		"a Secret changed":                {keys{key("a", long)}, keys{key("b", none)}, routes.Takeover{}, false, false, false, keys{key("b", fresh)}},
		"not accepted, not taken over":    {keys{key("a", long)}, nil, routes.Takeover{Awaited: true, Values: true}, true, false, false, keys{key("a", long)}},
		"not accepted":                    {keys{key("a", long)}, nil, routes.Takeover{}, true, false, false, nil},
		"of a dispatcher that says less":  {keys{key("a", long)}, keys{key("b", none)}, routes.Takeover{}, false, true, false, keys{key("a", long)}},
		"an entry of an earlier manager":  {keys{key("a", long)}, nil, routes.Takeover{}, false, false, false, keys{key("a", long)}},
		"no dispatcher":                   {keys{key("a", long)}, keys{key("a", none)}, routes.Takeover{}, true, false, true, nil},
		"of an earlier manager, not said": {nil, nil, routes.Takeover{}, false, false, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := &v1alpha1.WebhookSubscription{Status: v1alpha1.WebhookSubscriptionStatus{Signing: v1alpha1.SigningStatus{Keys: test.said}}}
			v := verdict{keys: test.has}
			if test.rejected {
				v.rejection = &routing.Rejection{Reason: v1alpha1.ReasonSecretNotFound}
			}
			d := &v1alpha1.WebhookDispatcher{Status: v1alpha1.WebhookDispatcherStatus{ProgrammedRevision: 7}}
			if test.silent {
				d.Status.ProgrammedRevision = 0
			}
			if test.ownerless {
				d = nil
			}
			got := signing(sub, v, d, test.takeover, now)
			if diff := cmp.Diff(test.want, got.Keys); diff != "" {
				t.Error(diff)
			}
			if same := sameSigning(sub.Status.Signing, got); same != cmp.Equal(test.said, test.want) {
				t.Errorf("it counts as the same: %t", same)
			}
		})
	}
}
