package keys

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func ref(name string) *v1alpha1.SecretKeyReference {
	return &v1alpha1.SecretKeyReference{Name: name, Key: "key"}
}

// sub is a subscription that names some keys, of whom the status says that the given ones sign.
func sub(current string, previous, next *v1alpha1.SecretKeyReference, sign ...string) *v1alpha1.WebhookSubscription {
	s := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: "clinic-a", Name: "billing", UID: "6e2d6a06-5a3b-4f0e-9a11-000000000001", Generation: 3},
		Spec:       v1alpha1.WebhookSubscriptionSpec{Signing: v1alpha1.Signing{SecretRef: *ref(current), PreviousSecretRef: previous, NextSecretRef: next}},
		Status: v1alpha1.WebhookSubscriptionStatus{ObservedGeneration: 3, Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted, ObservedGeneration: 3},
			{Type: v1alpha1.ConditionProgrammed, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonProgrammed, ObservedGeneration: 3},
		}},
	}
	for _, id := range sign {
		s.Status.Signing.Keys = append(s.Status.Signing.Keys, v1alpha1.SigningKey{ID: id, Scheme: v1alpha1.SchemeShared, SinceTime: metav1.Now()})
	}
	return s
}

// TestNextStep: no step that a receiver could notice is made before somebody said that it has the new key, by the key's id, and none
// before the status is about what stands in the spec.
func TestNextStep(t *testing.T) {
	t.Parallel()
	status := func(s *v1alpha1.WebhookSubscription, change func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
		change(s)
		return s
	}
	condition := func(i int, is metav1.ConditionStatus, generation int64) func(*v1alpha1.WebhookSubscription) {
		return func(s *v1alpha1.WebhookSubscription) {
			s.Status.Conditions[i].Status, s.Status.Conditions[i].ObservedGeneration, s.Status.Conditions[i].Message = is, generation, "for a reason"
		}
	}
	for name, test := range map[string]struct {
		sub       *v1alpha1.WebhookSubscription
		confirmed string
		want      step
		wantKey   string
		wantWhy   string // part of it, or of the error
		wantErr   bool
	}{
		"nothing begun":                      {sub("a", nil, nil, "A"), "", stepAdd, "", "", false},
		"nothing begun, not accepted":        {status(sub("a", nil, nil), condition(0, metav1.ConditionFalse, 3)), "", stepAdd, "", "", false},
		"over":                               {sub("b", nil, nil, "B"), "B", stepDone, "B", "", false},
		"nothing begun, another is had":      {sub("a", nil, nil, "A"), "B", 0, "", "have to have key A, not B", true},
		"begun":                              {sub("a", nil, ref("b"), "A", "B"), "", stepTell, "B", "", false},
		"begun, had":                         {sub("a", nil, ref("b"), "A", "B"), "B", stepPromote, "B", "", false},
		"begun, the old one is had":          {sub("a", nil, ref("b"), "A", "B"), "A", 0, "", "have to have key B, not A", true},
		"begun, not signing yet":             {sub("a", nil, ref("b"), "A"), "B", stepWait, "", "1 key signs, and spec.signing names 2", false},
		"begun, status of before":            {status(sub("a", nil, ref("b"), "A", "B"), func(s *v1alpha1.WebhookSubscription) { s.Status.ObservedGeneration = 2 }), "B", stepWait, "", "not looked at this spec", false},
		"begun, programmed before":           {status(sub("a", nil, ref("b"), "A", "B"), condition(1, metav1.ConditionTrue, 2)), "B", stepWait, "", "not looked at this spec", false},
		"begun, not programmed":              {status(sub("a", nil, ref("b"), "A", "B"), condition(1, metav1.ConditionUnknown, 3)), "B", stepWait, "", "does not work by this spec yet: for a reason", false},
		"begun, not accepted":                {status(sub("a", nil, ref("b"), "A", "B"), condition(0, metav1.ConditionFalse, 3)), "B", stepWait, "", "not accepted, and its deliveries wait: for a reason", false},
		"begun, an earlier manager":          {sub("a", nil, ref("b")), "B", stepWait, "", "An earlier version wrote this status", false},
		"promoted":                           {sub("b", ref("a"), nil, "B", "A"), "", stepTell, "B", "", false},
		"promoted, had":                      {sub("b", ref("a"), nil, "B", "A"), "B", stepRemove, "B", "", false},
		"promoted, the old one is had":       {sub("b", ref("a"), nil, "B", "A"), "A", 0, "", "have to have key B, not A", true},
		"promoted, not signing so yet":       {sub("b", ref("a"), nil, "A", "B"), "B", 0, "", "have to have key A, not B", true},
		"ended, the old one still signs":     {sub("b", nil, nil, "B", "A"), "B", stepWait, "", "still signs", false},
		"three keys: the previous one first": {sub("b", ref("a"), ref("c"), "B", "A", "C"), "", stepTell, "B", "", false},
		"three keys, had":                    {sub("b", ref("a"), ref("c"), "B", "A", "C"), "B", stepRemove, "B", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := next(test.sub, test.confirmed)
			text := d.why
			if err != nil {
				text = err.Error()
			}
			if (err != nil) != test.wantErr || d.step != test.want || d.key.ID != test.wantKey || !strings.Contains(text, test.wantWhy) || test.wantWhy == "" && text != "" {
				t.Errorf("step %d, key %q, %q (%v); want %d, %q, %q", d.step, d.key.ID, d.why, err, test.want, test.wantKey, test.wantWhy)
			}
		})
	}
}

// TestKeysOfEachStep: in every spec that a rotation goes through, and in those that a step back leads to, a key signs that the
// receivers have: the old one until they were said to have the new one.
func TestKeysOfEachStep(t *testing.T) {
	t.Parallel()
	start := v1alpha1.Signing{SecretRef: *ref("old")}
	added := after(start, stepAdd, *ref("new"))
	promoted := after(added, stepPromote, v1alpha1.SecretKeyReference{})
	removed := after(promoted, stepRemove, v1alpha1.SecretKeyReference{})
	want := []v1alpha1.Signing{
		{SecretRef: *ref("old"), NextSecretRef: ref("new")}, {SecretRef: *ref("new"), PreviousSecretRef: ref("old")}, {SecretRef: *ref("new")},
	}
	if diff := cmp.Diff(want, []v1alpha1.Signing{added, promoted, removed}); diff != "" {
		t.Error(diff)
	}
	back, ok := undone(promoted)
	if diff := cmp.Diff(added, back); diff != "" || !ok {
		t.Error(ok, diff)
	}
	back, ok = undone(added)
	if diff := cmp.Diff(start, back); diff != "" || !ok {
		t.Error(ok, diff)
	}
	if _, ok := undone(removed); ok {
		t.Error("an end can be taken back: the receivers may have dropped the old key")
	}
	if _, ok := undone(v1alpha1.Signing{SecretRef: *ref("a"), PreviousSecretRef: ref("b"), NextSecretRef: ref("c")}); ok {
		t.Error("of three keys, one would be lost")
	}
}
