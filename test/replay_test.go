package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// replay applies a WebhookReplay of subscription "a" with the given further lines of spec.
func (n *tenant) replay(name string, more ...string) {
	n.Helper()
	n.apply(fmt.Sprintf("apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookReplay\nmetadata: {name: %s}\nspec:\n  subscriptionRef: {name: a}\n  %s\n",
		name, strings.Join(more, "\n  ")))
}

// publishMany publishes events and waits until all of them are in a state.
func (n *tenant) publishMany(count int, state string) {
	n.Helper()
	for i := range count {
		n.publish(fmt.Sprintf(`{"type":"lab.created","data":{"n":%d}}`, i))
	}
	n.eventually(func() error {
		code, _, body := n.request(http.MethodGet, "/deliveries?subscription=a&limit=500&state="+state, "", "")
		if got := strings.Count(body, `"id":"dlv_`); code != http.StatusOK || got != count {
			return fmt.Errorf("%d %s of %d: %d", got, state, count, code)
		}
		return nil
	})
}

// counts waits until a replay is complete, and returns what its status counts.
func (n *tenant) counts(name string) string {
	n.Helper()
	n.kube("wait", "--for=condition=Complete", "--timeout=60s", "webhookreplay/"+name)
	return n.kube("get", "webhookreplay", name, "-o", `jsonpath={.status.selected}/{.status.done}/{.status.passedOver}/{.status.remaining} {.status.conditions[?(@.type=="Ready")].reason}`)
}

// TestReplayInGit: what failed while an endpoint was down is delivered again, once each, by an object alone; and delivered ones, too.
func TestReplayInGit(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusInternalServerError))
	n.subscribe("a", r.URL, `"*"`, "retry: {maxAttempts: 1}")
	n.ready("a")
	const count = 40
	n.publishMany(count, "Failed")
	r.answer(always(http.StatusOK))
	n.replay("after-the-outage", "ratePerSecond: 200")
	if got, want := n.counts("after-the-outage"), fmt.Sprintf("%d/%[1]d/0/0 Completed", count); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	again := map[string]int{}
	for _, got := range n.waitFor(r, 2*count)[count:] {
		again[got.id()]++
	}
	if len(again) != count {
		t.Errorf("%d deliveries arrived again, want %d", len(again), count)
	}
	n.replay("once-more", "state: Delivered", "ratePerSecond: 1000")
	if got, want := n.counts("once-more"), fmt.Sprintf("%d/%[1]d/0/0 Completed", count); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	n.waitFor(r, 3*count)
	row := n.kube("get", "webhookreplay", "once-more", "--no-headers")
	if got := strings.Join(strings.Fields(row)[:6], " "); got != "once-more True Completed Replay 40 40" {
		t.Errorf("the row begins with %q", got)
	}
	<-time.After(3 * time.Second) // long enough for another page
	if got := len(r.all()); got != 3*count {
		t.Errorf("%d requests arrived, want %d", got, 3*count)
	}
}

// TestReplaySuspendedAndDeleted: both stop it within seconds, and the first goes on where it stopped.
func TestReplaySuspendedAndDeleted(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"*"`)
	n.ready("a")
	const count = 60
	n.publishMany(count, "Delivered")
	n.replay("slow", "state: Delivered", "ratePerSecond: 10")
	n.waitFor(r, count+5)
	n.kube("patch", "webhookreplay", "slow", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	n.kube("wait", "--for=condition=Suspended", "--timeout=60s", "webhookreplay/slow")
	n.eventually(func() error {
		if state := n.kube("get", "webhookreplay", "slow", "-o", "jsonpath={.status.dispatchers[0].state}"); state != "Suspended" {
			return fmt.Errorf("the dispatcher says %s", state)
		}
		return nil
	})
	<-time.After(time.Second) // for what is on its way
	stopped := len(r.all())
	<-time.After(3 * time.Second)
	if got := len(r.all()); got != stopped || got >= 2*count {
		t.Errorf("%d requests arrived while it is suspended, of %d in all", got-stopped, got)
	}
	n.kube("patch", "webhookreplay", "slow", "--type=merge", "-p", `{"spec":{"suspend":false,"ratePerSecond":200}}`)
	if got, want := n.counts("slow"), fmt.Sprintf("%d/%[1]d/0/0 Completed", count); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	n.waitFor(r, 2*count)

	n.replay("deleted", "state: Delivered", "ratePerSecond: 5")
	n.waitFor(r, 2*count+3)
	n.kube("delete", "webhookreplay", "deleted")
	<-time.After(2 * time.Second)
	stopped = len(r.all())
	<-time.After(3 * time.Second)
	if got := len(r.all()); got != stopped {
		t.Errorf("%d requests arrived after it was deleted", got-stopped)
	}
}

// TestCancelInGit: planned deliveries are cancelled, and no others.
func TestCancelInGit(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"appointment.*"`, "schedule: {at: timestamp(event.data.start)}")
	n.ready("a")
	const count = 25
	for i := range count {
		n.publish(fmt.Sprintf(`{"type":"appointment.created","data":{"id":"apt-%d","start":%q}}`, i, time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)))
	}
	n.replay("closed", "action: Cancel")
	if got, want := n.counts("closed"), fmt.Sprintf("%d/%[1]d/0/0 Completed", count); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	code, _, body := n.request(http.MethodGet, "/deliveries?subscription=a&limit=500&state=Cancelled", "", "")
	if got := strings.Count(body, `"reason":"ByUser"`); code != http.StatusOK || got != count {
		t.Errorf("%d were cancelled by a user: %d %s", got, code, body)
	}
}

// TestReplayRights: who has the role editor in a namespace makes replays there and nowhere else; a viewer reads them.
func TestReplayRights(t *testing.T) {
	t.Parallel()
	n, other := newTenant(t), newTenant(t)
	n.kube("create", "serviceaccount", "viewer")
	n.kube("create", "rolebinding", "viewer", "--clusterrole=eventflow-viewer", "--serviceaccount="+n.namespace+":viewer")
	for _, test := range []struct {
		who, verb, namespace string
		want                 bool
	}{
		{"publisher", "create", n.namespace, true},
		{"publisher", "delete", n.namespace, true},
		{"publisher", "create", other.namespace, false},
		{"viewer", "list", n.namespace, true},
		{"viewer", "create", n.namespace, false},
		{"viewer", "list", other.namespace, false},
	} {
		n.eventually(func() error {
			review, err := json.Marshal(map[string]any{
				"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
				"spec": map[string]any{
					"user":               "system:serviceaccount:" + n.namespace + ":" + test.who,
					"resourceAttributes": map[string]string{"verb": test.verb, "group": "webhooks.clinikapi.com", "resource": "webhookreplays", "namespace": test.namespace},
				},
			})
			if err != nil {
				return err
			}
			got, err := system.kube(n.ctx, string(review), "create", "-f", "-", "-o", "jsonpath={.status.allowed}")
			if err != nil || got != fmt.Sprint(test.want) {
				return fmt.Errorf("%+v: %s, %w", test, got, err)
			}
			return nil
		})
	}
}

// TestReplayThroughKills: a dispatcher that is killed in the middle of a replay of delivered ones, again and again, replays each once.
// It runs alone, for the others need the dispatcher.
func TestReplayThroughKills(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"*"`)
	n.ready("a")
	const count, kills = 150, 3
	n.publishMany(count, "Delivered")
	n.replay("killed", "state: Delivered", "ratePerSecond: 20")
	for i := range kills {
		n.waitFor(r, count+(i+1)*count/(kills+2))
		system.dispatcher.kill()
		if err := system.startDispatcher(n.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.counts("killed"); !strings.HasPrefix(got, fmt.Sprintf("%d/%[1]d/0/0", count)) {
		t.Errorf("it says %q", got)
	}
	ids := func() int {
		seen := map[string]bool{}
		for _, got := range r.all() {
			seen[got.id()] = true
		}
		return len(seen)
	}
	n.eventually(func() error {
		if got := ids(); got < 2*count {
			return fmt.Errorf("%d deliveries arrived, want %d", got, 2*count)
		}
		return nil
	})
	<-time.After(2 * time.Second)
	if got := ids(); got != 2*count {
		t.Errorf("%d deliveries arrived, want %d: each was to be replayed once", got, 2*count)
	}
}
