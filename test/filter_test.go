package test

import (
	"net/http"
	"testing"
)

// TestFilter: an applied filter decides which events are delivered, a change of it is taken over, and a failure is shown.
func TestFilter(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("finished", r.URL, `"encounter.updated"`, `filter: "event.data.status == 'finished' && event.previous.status != 'finished'"`)
	n.ready("finished")
	publish := func(want int, data, previous string) {
		t.Helper()
		if _, deliveries := n.publish(`{"type":"encounter.updated","data":` + data + `,"previous":` + previous + `}`); deliveries != want {
			t.Errorf("%s after %s: %d deliveries, want %d", data, previous, deliveries, want)
		}
	}
	publish(1, `{"n":1,"status":"finished"}`, `{"status":"open"}`)
	publish(0, `{"n":2,"status":"finished"}`, `{"status":"finished"}`)
	publish(0, `{"n":3,"status":"open"}`, `{"status":"open"}`)
	publish(0, `{"n":4}`, `{}`)
	n.waitFor(r, 1)

	n.kube("patch", "webhooksubscription", "finished", "--type=merge", "-p", `{"spec":{"filter":"event.data.n > 5"}}`)
	n.ready("finished")
	publish(0, `{"n":5}`, `{}`)
	publish(1, `{"n":6}`, `{}`)
	publish(1, `{"n":"seven"}`, `{}`) // delivered, as spec.filterErrors says by default
	n.condition("finished", "FilterHealthy", "False", "WrongType")
	n.kube("patch", "webhooksubscription", "finished", "--type=merge", "-p", `{"spec":{"filterErrors":"Skip"}}`)
	n.ready("finished")
	publish(0, `{"n":"eight"}`, `{}`)
	if got := n.waitFor(r, 3); len(got) != 3 {
		t.Errorf("%d deliveries arrived, want 3", len(got))
	}

	n.kube("patch", "webhooksubscription", "finished", "--type=merge", "-p", `{"spec":{"filter":"event.data.n >"}}`)
	n.condition("finished", "Accepted", "False", "InvalidFilter")
}
