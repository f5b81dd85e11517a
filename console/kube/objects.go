package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// Objects is what the pages read and write, with one user's rights.
type Objects interface {
	// Namespaces the user may list; an error that IsForbidden leaves the user to name one.
	Namespaces(ctx context.Context) ([]string, error)
	// Subscriptions are the rows of a namespace, or of all if it is empty. fresh asks for no kept list.
	Subscriptions(ctx context.Context, namespace string, fresh bool) (*Snapshot, error)
	Subscription(ctx context.Context, namespace, name string) (*v1alpha1.WebhookSubscription, error)
	// Specs are the subscriptions of a namespace with all that they say, at most MaxSpecs; more reports whether there are others.
	Specs(ctx context.Context, namespace string) (subs []v1alpha1.WebhookSubscription, more bool, err error)
	// Check asks whether Save would succeed.
	Check(ctx context.Context, sub *v1alpha1.WebhookSubscription) error
	// Save creates a subscription that has no resourceVersion, and updates one that has.
	Save(ctx context.Context, sub *v1alpha1.WebhookSubscription) error
	// Patch changes fields of a spec, by a JSON merge patch (RFC 7396).
	Patch(ctx context.Context, namespace, name string, patch []byte) error
	// CheckPatch asks whether Patch would succeed.
	CheckPatch(ctx context.Context, namespace, name string, patch []byte) error
	Dispatchers(ctx context.Context) ([]v1alpha1.WebhookDispatcher, error)
	// CreateSecret makes a Secret with one key.
	CreateSecret(ctx context.Context, namespace, name, key string, value []byte) error
	// ReadOnly is why nothing can be changed, or empty.
	ReadOnly() string
}

// MaxSpecs is how many whole subscriptions are read at once.
const MaxSpecs = 1000

// Snapshot is a list of subscriptions, failing first, and when it was made. Nobody changes it.
type Snapshot struct {
	Rows []Row
	Time time.Time
}

// Row is a subscription as a table shows it.
type Row struct {
	Namespace, Name string
	Created         time.Time
	Endpoint        string
	Events          []string
	Suspended       bool
	// State is one of the States; Reason the word behind it.
	State, Reason string
	Pending       int64
	Scheduled     int64
	Delivered     int64
	Retrying      int64
	Failed        int64
	LastDelivered time.Time
	// GitOps names the tool that owns it, or is empty.
	GitOps string

	text string // all that a search looks at, in lower case
}

// Matches reports whether each of the words, in lower case, stands in the row's name, namespace, endpoint, reason or events.
func (r *Row) Matches(words []string) bool {
	for _, w := range words {
		if !strings.Contains(r.text, w) {
			return false
		}
	}
	return true
}

// The states of a subscription, as pages group them.
const (
	StateFailing     = "failing"
	StateNotAccepted = "invalid"
	StatePending     = "pending"
	StateSuspended   = "suspended"
	StateReady       = "ready"
)

// States are all of them, failing first: the order of the table.
var States = []string{StateFailing, StateNotAccepted, StatePending, StateSuspended, StateReady}

// Forbidden says which right is missing.
type Forbidden struct {
	Verb, Group, Resource, Namespace string
	Message                          string
}

// Error names the verb and the resource.
func (f *Forbidden) Error() string {
	where := "in the whole cluster"
	if f.Namespace != "" {
		where = "in namespace " + f.Namespace
	}
	resource := f.Resource
	if f.Group != "" {
		resource += "." + f.Group
	}
	return fmt.Sprintf("you may not %s %s %s", f.Verb, resource, where)
}

var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("there is no such object")
	// ErrReadOnly says that this console changes nothing.
	ErrReadOnly = errors.New("this console reads a folder and does not write to it: download the YAML, and save it there")
)

// RowOf makes a row of a subscription.
func RowOf(sub *v1alpha1.WebhookSubscription) Row {
	r := Row{
		Namespace: sub.Namespace, Name: sub.Name, Created: sub.CreationTimestamp.Time,
		Endpoint: sub.Status.Endpoint, Events: sub.Spec.Events, GitOps: Owner(sub),
		Suspended: sub.Spec.Suspend != nil && *sub.Spec.Suspend,
	}
	r.State, r.Reason = StateOf(sub)
	if c := sub.Status.Deliveries; c != nil {
		r.Pending, r.Delivered, r.Retrying, r.Failed = value(c.Pending), value(c.Delivered), value(c.Retrying), value(c.Failed)
		r.Scheduled = value(c.Scheduled)
		if c.LastDeliveredTime != nil {
			r.LastDelivered = c.LastDeliveredTime.Time
		}
	}
	return r
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// StateOf decides a subscription's state by its conditions.
func StateOf(sub *v1alpha1.WebhookSubscription) (state, reason string) {
	var accepted, ready, endpoint, reasons = "", "", "", map[string]string{}
	for _, c := range sub.Status.Conditions {
		reasons[c.Type] = c.Reason
		switch c.Type {
		case v1alpha1.ConditionAccepted:
			accepted = string(c.Status)
		case v1alpha1.ConditionReady:
			ready = string(c.Status)
		case v1alpha1.ConditionEndpointHealthy:
			endpoint = string(c.Status)
		}
	}
	switch {
	case accepted == "False":
		return StateNotAccepted, reasons[v1alpha1.ConditionAccepted]
	case endpoint == "False":
		return StateFailing, reasons[v1alpha1.ConditionEndpointHealthy]
	case ready == "False":
		return StateFailing, reasons[v1alpha1.ConditionReady]
	case sub.Spec.Suspend != nil && *sub.Spec.Suspend:
		return StateSuspended, v1alpha1.ReasonSuspended
	case ready == "True":
		return StateReady, reasons[v1alpha1.ConditionReady]
	}
	return StatePending, v1alpha1.ReasonPending
}

// Owner names the tool that keeps an object in step with Git, by the marks that it leaves, or returns "".
func Owner(object metav1.Object) string {
	labels := object.GetLabels()
	switch {
	case object.GetAnnotations()["argocd.argoproj.io/tracking-id"] != "", labels["argocd.argoproj.io/instance"] != "":
		return "Argo CD"
	case labels["kustomize.toolkit.fluxcd.io/name"] != "", labels["helm.toolkit.fluxcd.io/name"] != "":
		return "Flux"
	}
	return ""
}

// Sort puts failing subscriptions first, and those of a state by namespace and name, and prepares the rows for searches.
func Sort(rows []Row) {
	for i := range rows {
		r := &rows[i]
		r.text = strings.ToLower(strings.Join(append([]string{r.Name, r.Namespace, r.Endpoint, r.Reason}, r.Events...), "\n"))
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(slices.Index(States, a.State)-slices.Index(States, b.State), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
}
