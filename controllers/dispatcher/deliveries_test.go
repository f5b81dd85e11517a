package dispatcher

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func withDeliveries(enabled bool, status metav1.ConditionStatus) *v1alpha1.WebhookDispatcher {
	d := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: "clinic-a", Name: "main"}}
	d.Spec.DeliveriesAPI.Enabled = ptr.To(enabled)
	if status != "" {
		d.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionDeliveriesAPIReady, Status: status}}
	}
	return d
}

// TestPodsListenWhileTheAPIIsRegistered: whatever the spec and the manager's flag say, the port stays until the APIService is gone.
func TestPodsListenWhileTheAPIIsRegistered(t *testing.T) {
	t.Parallel()
	open := withDeliveries(true, "")
	open.Spec.Ingest.Authentication = v1alpha1.IngestNone
	for name, test := range map[string]struct {
		d       *v1alpha1.WebhookDispatcher
		allowed bool
		want    bool
	}{
		"asks":                        {withDeliveries(true, ""), true, true},
		"asks, out of reach":          {withDeliveries(true, metav1.ConditionFalse), true, true},
		"asks, not allowed":           {withDeliveries(true, metav1.ConditionFalse), false, false},
		"not allowed, yet registered": {withDeliveries(true, metav1.ConditionTrue), false, true},
		"not allowed, in doubt":       {withDeliveries(true, metav1.ConditionUnknown), false, true},
		"does not ask":                {withDeliveries(false, ""), true, false},
		"off, yet registered":         {withDeliveries(false, metav1.ConditionTrue), true, true},
		"off, taken back":             {withDeliveries(false, metav1.ConditionFalse), true, false},
		"knows nobody":                {open, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			(&Reconciler{DeliveriesAPI: test.allowed}).settleDeliveries(test.d)
			if got := slices.Contains(arguments(test.d), "--deliveries-listen=:8443"); got != test.want {
				t.Errorf("the pods listen: %t", got)
			}
			if n := len(volumes(test.d)) + len(deliveriesVolumes(test.d)); n != 1+map[bool]int{true: 1}[test.want] {
				t.Errorf("%d volumes", n)
			}
		})
	}
}

// TestPodsFollowTheRegistration: that the API came or went makes the dispatcher be looked at, and nothing else of the condition.
func TestPodsFollowTheRegistration(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after metav1.ConditionStatus
		want          bool
	}{
		"registered":   {metav1.ConditionFalse, metav1.ConditionUnknown, true},
		"in doubt":     {metav1.ConditionTrue, metav1.ConditionUnknown, false},
		"taken back":   {metav1.ConditionUnknown, metav1.ConditionFalse, true},
		"still absent": {"", metav1.ConditionFalse, false},
	} {
		got := statusChanged(event.UpdateEvent{ObjectOld: withDeliveries(true, test.before), ObjectNew: withDeliveries(true, test.after)})
		if got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestPodsStayWithoutACertificate: pods that mount a Secret which could not be made would not start, and deliver nothing.
func TestPodsStayWithoutACertificate(t *testing.T) {
	t.Parallel()
	for _, missing := range []bool{true, false} {
		made, err := objects(observation{dispatcher: withDeliveries(true, ""), certificateMissing: missing}, Image{Name: "eventflow"})
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for _, object := range made {
			kinds[object.kind]++
		}
		if kinds["Deployment"] != map[bool]int{false: 1}[missing] || kinds["Service"] != 2 {
			t.Errorf("missing %t: %v", missing, kinds)
		}
	}
}
