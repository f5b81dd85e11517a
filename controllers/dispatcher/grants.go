package dispatcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// What the manager may do in a namespace that dispatchers live in: its own, and each one where somebody bound this role to
// it. It is the only role by which the manager writes anything but statuses.
//
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups="",resources=services;serviceaccounts,verbs=list;watch;create;patch,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=list;watch;create;patch,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch;delete,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=list;watch;create;patch,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles,verbs=list;watch;create;patch,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=list;watch;create;patch;delete,roleName=eventflow-dispatcher-namespace
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;patch;delete,roleName=eventflow-dispatcher-namespace

const (
	// grantKept is how long a namespace counts as granted without asking again.
	grantKept = time.Minute
	// refusalKept is the same for one that is not granted: a grant takes effect within this time, and a moment.
	refusalKept = 2 * time.Second
	// grantAwaited is how often a dispatcher in a namespace that is not granted is looked at.
	grantAwaited = 10 * time.Second
	// withdrawnAfter is how long the answer has to be no before it takes rights from pods that run: a RoleBinding that is
	// replaced is gone for a moment.
	withdrawnAfter = time.Minute
)

// grantAsked stand for the role: whoever may do these was given it as a whole.
var grantAsked = []authorizationv1.ResourceAttributes{
	{Verb: "patch", Group: "apps", Resource: "deployments"},
	{Verb: "patch", Resource: "secrets"},
	{Verb: "patch", Group: "rbac.authorization.k8s.io", Resource: "roles"},
}

// Grants knows in which namespaces the manager may make dispatchers. It is safe for concurrent use.
type Grants struct {
	client client.Client
	home   string
	now    func() time.Time

	mu    sync.Mutex
	known map[string]grant
}

type grant struct {
	granted bool
	until   time.Time
	since   time.Time // of a refusal: when the first of those in a row was given
}

// NewGrants returns the Grants of a manager that is installed in namespace home.
func NewGrants(c client.Client, home string) *Grants {
	return &Grants{client: c, home: home, now: time.Now, known: make(map[string]grant)}
}

// Granted reports whether the manager may make dispatchers in a namespace. It asks the API server, and remembers the
// answer for a while; of the manager's own namespace, it does not ask.
func (g *Grants) Granted(ctx context.Context, namespace string) (bool, error) {
	if namespace == g.home {
		return true, nil
	}
	g.mu.Lock()
	known, found := g.known[namespace]
	g.mu.Unlock()
	if found && g.now().Before(known.until) {
		return known.granted, nil
	}
	granted, err := g.ask(ctx, namespace)
	if err != nil {
		return false, err
	}
	now := g.now()
	switch {
	case granted:
		known = grant{granted: true, until: now.Add(grantKept)}
	case found && !known.granted:
		known.until = now.Add(refusalKept)
	default:
		known = grant{until: now.Add(refusalKept), since: now}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known[namespace] = known
	for other, k := range g.known { // what nobody asks about any more is not kept
		if now.After(k.until.Add(withdrawnAfter)) {
			delete(g.known, other)
		}
	}
	return granted, nil
}

// Standing reports whether the manager may make dispatchers in a namespace by what it knows, however old that is, and, if
// not, for how long it has not been able to. It asks only if it knows nothing: one dispatcher's turn must not ask for all.
func (g *Grants) Standing(ctx context.Context, namespace string) (granted bool, refused time.Duration, err error) {
	g.mu.Lock()
	_, found := g.known[namespace]
	g.mu.Unlock()
	if namespace == g.home || !found {
		if granted, err = g.Granted(ctx, namespace); granted || err != nil {
			return granted, 0, err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.known[namespace]
	if known.granted {
		return true, 0, nil
	}
	return false, g.now().Sub(known.since), nil
}

func (g *Grants) ask(ctx context.Context, namespace string) (bool, error) {
	for _, asked := range grantAsked {
		asked.Namespace = namespace
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &asked}}
		if err := g.client.Create(ctx, review); err != nil {
			return false, fmt.Errorf("ask what the manager may do in namespace %s: %w", namespace, err)
		}
		if !review.Status.Allowed {
			return false, nil
		}
	}
	return true, nil
}

// command is how somebody who may lets the manager make dispatchers in a namespace.
func (g *Grants) command(namespace string) string {
	return fmt.Sprintf("kubectl create rolebinding %[1]s --namespace=%[2]s --clusterrole=%[1]s --serviceaccount=%[3]s:eventflow-manager",
		names.NamespaceRole, namespace, g.home)
}

// namespaceNotGranted refuses a dispatcher in a namespace in which the manager may not make it.
func namespaceNotGranted(o observation) (reason, message string, failed bool) {
	return v1alpha1.ReasonNamespaceNotGranted, fmt.Sprintf("the manager may not make dispatchers in namespace %s: %s", o.dispatcher.Namespace, o.grant), o.grant != ""
}
