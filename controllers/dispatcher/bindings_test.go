package dispatcher

import (
	"context"
	"slices"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// grantor is an API server with one dispatcher, in a namespace that is granted or not, and the two bindings.
type grantor struct {
	client.Client
	granted  bool
	asked    int
	subjects map[string][]rbacv1.Subject
}

func (g *grantor) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	g.asked++
	object.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed = g.granted
	return nil
}

func (g *grantor) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.WebhookDispatcherList).Items = []v1alpha1.WebhookDispatcher{{ObjectMeta: metav1.ObjectMeta{Namespace: "clinics", Name: "main"}}}
	return nil
}

func (g *grantor) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	binding := object.(*rbacv1.ClusterRoleBinding)
	binding.Name, binding.Subjects = key.Name, slices.Clone(g.subjects[key.Name])
	return nil
}

func (g *grantor) Apply(_ context.Context, configuration runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	text, err := runtime.DefaultUnstructuredConverter.ToUnstructured(configuration)
	if err != nil {
		return err
	}
	var binding rbacv1.ClusterRoleBinding
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(text, &binding); err != nil {
		return err
	}
	g.subjects[binding.Name] = binding.Subjects
	return nil
}

// TestRightsOutlastAMoment: a grant that is gone for a moment takes no right from pods that run, one that is gone for good
// does, and none gives one.
func TestRightsOutlastAMoment(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	g := &grantor{subjects: make(map[string][]rbacv1.Subject)}
	r := &Reconciler{Client: g, Reader: g, Grants: NewGrants(g, "eventflow-system")}
	r.Grants.now = func() time.Time { return now }
	for _, step := range []struct {
		after   time.Duration
		granted bool
		want    int
	}{
		{0, false, 0},
		{5 * time.Second, true, 1},
		{grantKept + time.Second, false, 1}, // somebody replaces the RoleBinding
		{5 * time.Second, true, 1},
		{grantKept + time.Second, false, 1},
		{withdrawnAfter / 2, false, 1},
		{withdrawnAfter, false, 0},
	} {
		now, g.granted = now.Add(step.after), step.granted
		granted, err := r.Grants.Granted(t.Context(), "clinics")
		if err != nil || granted != step.granted {
			t.Fatalf("granted is %t (%v), want %t", granted, err, step.granted)
		}
		if _, err := r.bind(t.Context()); err != nil {
			t.Fatal(err)
		}
		for role, subjects := range g.subjects {
			if len(subjects) != step.want {
				t.Errorf("%v, granted %t: %s has %d subjects, want %d", now.Unix(), step.granted, role, len(subjects), step.want)
			}
		}
	}
	asked := g.asked
	for range 100 {
		now = now.Add(time.Minute)
		if err := r.withdraw(t.Context(), "clinics"); err != nil {
			t.Fatal(err)
		}
	}
	if g.asked != asked {
		t.Errorf("%d questions about a namespace that is refused, for the bindings alone", g.asked-asked)
	}
}
