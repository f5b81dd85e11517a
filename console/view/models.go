package view

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

// PageSize is how many rows a page of subscriptions has.
const PageSize = 50

// Subscriptions is the page of all subscriptions.
type Subscriptions struct {
	Frame
	State, Search string
	Page, Pages   int
	Namespaces    []string
	// Counts are by state, before State narrows; Total is their sum.
	Counts  map[string]int
	Total   int
	Matched int
	Rows    []kube.Row
	AsOf    time.Time
}

func (s *Subscriptions) link(state, page string) string {
	return string(Link([]string{"subscriptions"}, "namespace", s.Namespace, "q", s.Search, "state", state, "page", page))
}

// Subscription is the page of one.
type Subscription struct {
	Frame
	Sub   *v1alpha1.WebhookSubscription
	Row   kube.Row
	YAML  string
	Owner string
	// Recent, Failed and Scheduled are parts of its deliveries; DeliveriesProblem is why there are none.
	Recent, Failed, Scheduled []deliveries.Delivery
	DeliveriesProblem         *Problem
	TestTypes                 []string
}

// conditions are those that are shown, the most telling first.
func (s *Subscription) conditions() []metav1.Condition { return ordered(s.Sub.Status.Conditions) }

// pulled reports whether the consumer asks for the deliveries.
func (s *Subscription) pulled() bool { return s.Sub.Spec.Delivery.Mode == v1alpha1.DeliveryPull }

// meaning says what a condition means for this subscription.
func (s *Subscription) meaning(c metav1.Condition) string {
	if s.pulled() && c.Reason == v1alpha1.ReasonReady {
		return "An event published now waits until the consumer pulls it."
	}
	return meaning(c.Reason)
}

func ordered(conditions []metav1.Condition) (shown []metav1.Condition) {
	for _, kind := range []string{
		v1alpha1.ConditionReady, v1alpha1.ConditionAvailable, v1alpha1.ConditionEndpointHealthy, v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed,
		v1alpha1.ConditionStoreReady, v1alpha1.ConditionFilterHealthy, v1alpha1.ConditionScheduleHealthy, v1alpha1.ConditionTransformHealthy,
	} {
		for _, c := range conditions {
			if c.Type == kind {
				shown = append(shown, c)
			}
		}
	}
	return shown
}

// Deliveries is the page of deliveries, or of events.
type Deliveries struct {
	Frame
	Namespaces                        []string
	Subscription, State, Since, Until string
	Items                             []deliveries.Delivery
	Events                            []Event
	Continue                          string
	// First is the id of the newest shown, of which the bar counts on.
	First string
}

// Event is what one event caused.
type Event struct {
	ID, Type string
	Time     time.Time
	Caused   []deliveries.Delivery
}

func (d *Deliveries) query(more ...string) string {
	return string(Link([]string{"deliveries"}, append([]string{
		"namespace", d.Namespace, "subscription", d.Subscription, "state", d.State, "since", d.Since, "until", d.Until,
	}, more...)...))
}

func (d *Deliveries) freshQuery() string {
	return string(Link([]string{"deliveries", "fresh"},
		"namespace", d.Namespace, "subscription", d.Subscription, "state", d.State, "first", d.First))
}

// Delivery is the page of one.
type Delivery struct {
	Frame
	Delivery deliveries.Delivery
	// Payload is shown only after a click, to who may.
	Payload string
}

// Replay is what a replay of many did so far.
type Replay struct {
	Frame
	Query    deliveries.Query
	Since    string
	Until    string
	Replayed int
	Done     bool
	// Refused are the chosen deliveries that could not be replayed, and why.
	Refused []string
}

// Dispatchers is the page of the data planes.
type Dispatchers struct {
	Frame
	Items []v1alpha1.WebhookDispatcher
}

// Rotate is the page that leads through a change of keys.
type Rotate struct {
	Frame
	Sub *v1alpha1.WebhookSubscription
}

// Form is what the page of creating and editing holds.
type Form struct {
	Namespace, Name, ResourceVersion string
	Events                           map[string]bool
	URL, URLSecret, URLKey           string
	// Signing is "new" or "have".
	Signing, Secret, Key     string
	Filter                   string
	At, ScheduleKey, IfPast  string
	Mode, Ordering, Timeout  string
	MaxInFlight              string
	Dispatcher, DispatcherNS string
	Force                    bool
}

// Edit is the page of creating and editing.
type Edit struct {
	Frame
	Form
	Resources, Actions []string
	Check              Check
	Owner              string
	New                bool
	Namespaces         []string
}

// Check is what is wrong with a form, and the YAML that it makes.
type Check struct {
	Prefs    Prefs
	Checked  bool
	Problems []string
	// Notes say what may be refused later, because the console cannot see it.
	Notes []string
	YAML  string
}

// operationalPatterns are those of what Event Flow says of subscriptions, which are no part of the grid.
func operationalPatterns() []string {
	all := []string{event.Operational + ".*"}
	for _, t := range event.OperationalTypes {
		all = append(all, string(t))
	}
	return all
}

// AsksOperational reports whether the form has one of them.
func (m *Edit) AsksOperational() bool {
	return slices.ContainsFunc(operationalPatterns(), func(p string) bool { return m.Events[p] })
}
