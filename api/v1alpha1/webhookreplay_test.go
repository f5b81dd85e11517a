package v1alpha1_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

var replayRules = map[string]rule{
	"what": {
		good: []string{"{}", "spec: {subscriptionRef: null, selector: {matchLabels: {tier: gold}}}"},
		bad: map[string]string{
			"spec: {subscriptionRef: null}":                 "spec: Invalid value … exactly one of subscriptionRef and selector must be set",
			"spec: {selector: {matchLabels: {tier: gold}}}": "spec: Invalid value … exactly one of subscriptionRef and selector must be set",
			"spec: null": "spec: Required value",
			"spec: {subscriptionRef: null, selector: {}}":                          "spec.selector.matchLabels: Required value",
			"spec: {action: Cancel, state: Failed}":                                "spec: Invalid value … state is of the action Replay alone: what is cancelled are deliveries that wait for their planned time",
			"spec: {action: Delete}":                                               "spec.action: Unsupported value",
			"spec: {state: Pending}":                                               "spec.state: Unsupported value",
			"spec: {since: '2026-01-15T10:00:00Z', until: '2026-01-15T10:00:00Z'}": "spec: Invalid value … since must be before until",
			"spec: {since: yesterday}":                                             "spec.since",
		},
	},
	"how": {
		good: []string{
			"spec: {action: Cancel}", "spec: {state: Delivered, suspend: true}", "spec: {state: Cancelled}",
			"spec: {since: '2026-01-15T09:00:00Z', until: '2026-01-15T10:00:00Z'}", "spec: {since: '2026-01-15T09:00:00Z'}",
		},
		bad: map[string]string{"spec: {suspend: 1}": "spec.suspend"},
	},
	"subscriptionRef": {
		good: []string{fmt.Sprintf("spec: {subscriptionRef: {name: %s}}", strings.Repeat("x", 253))},
		bad: map[string]string{
			"spec: {subscriptionRef: {name: null}}":                                      "spec.subscriptionRef.name: Required value",
			"spec: {subscriptionRef: {name: ''}}":                                        "spec.subscriptionRef.name … should be at least 1 chars long",
			fmt.Sprintf("spec: {subscriptionRef: {name: %s}}", strings.Repeat("x", 254)): "spec.subscriptionRef.name … may not be more than 253 bytes",
		},
	},
	"matchLabels": {
		good: []string{"spec: {subscriptionRef: null, selector: {matchLabels: {tier: ''}}}"},
		bad: map[string]string{
			"spec: {subscriptionRef: null, selector: {matchLabels: {}}}":                                                              "should have at least 1 properties",
			"spec: {subscriptionRef: null, selector: {matchLabels: {a: '', b: '', c: '', d: '', e: '', f: '', g: '', h: '', i: ''}}}": "spec.selector.matchLabels … must have at most 8 items",
			fmt.Sprintf("spec: {subscriptionRef: null, selector: {matchLabels: {a: %s}}}", strings.Repeat("x", 64)):                   "may not be more than 63 bytes",
		},
	},
	"ratePerSecond": integerRules("spec.ratePerSecond", "spec: {ratePerSecond: %d}", 1, 1000),
	"ttl": {
		good: []string{"spec: {ttlSecondsAfterFinished: 0}"},
		bad:  map[string]string{"spec: {ttlSecondsAfterFinished: -1}": "spec.ttlSecondsAfterFinished … should be greater than or equal to 0"},
	},
}

var replayTransitions = map[string]rule{
	"what it does stays": {
		good: []string{"spec: {suspend: true}", "spec: {ratePerSecond: 5}", "spec: {ttlSecondsAfterFinished: 60}"},
		bad: map[string]string{
			"spec: {state: null, action: Cancel}":                            "spec: Invalid value … action is immutable: create a new WebhookReplay instead",
			"spec: {state: Delivered}":                                       "spec: Invalid value … state is immutable: create a new WebhookReplay instead",
			"spec: {state: null}":                                            "spec: Invalid value … state is immutable: create a new WebhookReplay instead",
			"spec: {since: '2026-01-15T09:30:00Z'}":                          "spec: Invalid value … since is immutable: create a new WebhookReplay instead",
			"spec: {since: null}":                                            "spec: Invalid value … since is immutable: create a new WebhookReplay instead",
			"spec: {until: '2026-01-15T09:30:00Z'}":                          "spec: Invalid value … until is immutable: create a new WebhookReplay instead",
			"spec: {until: null}":                                            "spec: Invalid value … until is immutable: create a new WebhookReplay instead",
			"spec: {subscriptionRef: {name: another}}":                       "spec: Invalid value … subscriptionRef is immutable: create a new WebhookReplay instead",
			"spec: {subscriptionRef: null, selector: {matchLabels: {a: b}}}": "spec: Invalid value … selector is immutable: create a new WebhookReplay instead",
		},
	},
}

// progress is an item of status.dispatchers with one field changed.
func progress(field string) string {
	fields := map[string]string{"name": "eventflow-system/default", "state": "Running"}
	name, value, _ := strings.Cut(field, ": ")
	if fields[name] = value; value == "null" {
		delete(fields, name)
	}
	var all []string
	for name, value := range fields {
		all = append(all, name+": "+value)
	}
	return "status: {dispatchers: [{" + strings.Join(all, ", ") + "}]}"
}

var replayStatusRules = func() map[string]rule {
	rules := map[string]rule{
		"observedGeneration": {
			good: []string{"status: {observedGeneration: 1}", "status: {observedGeneration: -1}"},
			bad:  map[string]string{"status: {observedGeneration: -2}": "status.observedGeneration … should be greater than or equal to -1"},
		},
		"conditions": conditionRules,
		"subscriptions": {
			good: []string{"status: {subscriptions: " + list(256, "{name: s%d, dispatcher: eventflow-system/default}") + "}"},
			bad: map[string]string{
				"status: {subscriptions: []}": "status.subscriptions … should have at least 1 items",
				"status: {subscriptions: " + list(257, "{name: s%d, dispatcher: a/b}") + "}":                    "status.subscriptions … must have at most 256 items",
				"status: {subscriptions: [{dispatcher: a/b}]}":                                                  "status.subscriptions[0].name: Required value",
				"status: {subscriptions: [{name: '', dispatcher: a/b}]}":                                        "status.subscriptions[0].name … should be at least 1 chars long",
				fmt.Sprintf("status: {subscriptions: [{name: %s, dispatcher: a/b}]}", strings.Repeat("x", 254)): "status.subscriptions[0].name … may not be more than 253 bytes",
				"status: {subscriptions: [{name: a}]}":                                                          "status.subscriptions[0].dispatcher: Required value",
				"status: {subscriptions: [{name: a, dispatcher: ''}]}":                                          "status.subscriptions[0].dispatcher … should be at least 1 chars long",
				fmt.Sprintf("status: {subscriptions: [{name: a, dispatcher: %s}]}", strings.Repeat("x", 129)):   "status.subscriptions[0].dispatcher … may not be more than 128 bytes",
			},
		},
		"dispatchers": {
			good: []string{progress("reason: StoreUnavailable"), progress("position: dlv_1")},
			bad: map[string]string{
				"status: {dispatchers: []}": "status.dispatchers … should have at least 1 items",
				"status: {dispatchers: " + list(257, "{name: s%d, state: Running}") + "}":           "status.dispatchers … must have at most 256 items",
				"status: {dispatchers: [{name: a/b, state: Running}, {name: a/b, state: Running}]}": "status.dispatchers[1]: Duplicate value",
				progress("name: null"):                                "status.dispatchers[0].name: Required value",
				progress("name: ''"):                                  "status.dispatchers[0].name … should be at least 1 chars long",
				progress("name: " + strings.Repeat("x", 129)):         "status.dispatchers[0].name … may not be more than 128 bytes",
				progress("state: null"):                               "status.dispatchers[0].state: Required value",
				progress("state: Done"):                               "status.dispatchers[0].state: Unsupported value",
				progress("reason: ''"):                                "status.dispatchers[0].reason … should be at least 1 chars long",
				progress("reason: " + strings.Repeat("x", 65)):        "status.dispatchers[0].reason … may not be more than 64 bytes",
				progress("subscription: ''"):                          "status.dispatchers[0].subscription … should be at least 1 chars long",
				progress("subscription: " + strings.Repeat("x", 254)): "status.dispatchers[0].subscription … may not be more than 253 bytes",
				progress("position: ''"):                              "status.dispatchers[0].position … should be at least 1 chars long",
				progress("position: " + strings.Repeat("x", 65)):      "status.dispatchers[0].position … may not be more than 64 bytes",
			},
		},
	}
	for _, count := range []string{"selected", "done", "passedOver", "remaining"} {
		r := rule{
			good: []string{fmt.Sprintf("status: {%s: 0}", count)},
			bad:  map[string]string{fmt.Sprintf("status: {%s: -1}", count): "status." + count + " … should be greater than or equal to 0"},
		}
		if count != "remaining" {
			maps.Copy(r.bad, map[string]string{progress(count + ": -1"): "status.dispatchers[0]." + count + " … should be greater than or equal to 0"})
		}
		rules[count] = r
	}
	return rules
}()

// TestReplayDefaults: a replay that says no more than of which subscription replays what failed, 50 in a second.
func TestReplayDefaults(t *testing.T) {
	t.Parallel()
	replay := &v1alpha1.WebhookReplay{Spec: v1alpha1.WebhookReplaySpec{SubscriptionRef: v1alpha1.SubscriptionReference{Name: "billing-sync"}}}
	replay.Name, replay.Namespace = "defaults", "default"
	if err := apiServer.Create(t.Context(), replay, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	spec := replay.Spec
	if spec.Action != v1alpha1.ActionReplay || spec.State != "" || spec.RatePerSecond != 50 || ptr.Deref(spec.Suspend, false) || spec.TTLSecondsAfterFinished != nil {
		t.Errorf("the defaults are %+v", spec)
	}
	if replay.Status.ObservedGeneration != -1 {
		t.Errorf("observedGeneration %d before anybody saw it", replay.Status.ObservedGeneration)
	}
}
