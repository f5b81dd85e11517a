package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// apiGroup is the group of the resources that access is granted to. They exist for RBAC only.
const apiGroup = "webhooks.clinikapi.com"

// The resources that RBAC rules name to grant what this API does.
const (
	ResourceEvents     = "webhookevents"     // create: publish
	ResourceDeliveries = "webhookdeliveries" // get, list; update: replay

	ResourcePull = "webhooksubscriptions/pull" // update: get deliveries with their payload, and acknowledge them
)

// Access is what a request wants to do.
type Access struct {
	// Verb is create, get, list, watch or update.
	Verb string
	// Group of the resource; empty for webhooks.clinikapi.com.
	Group string
	// Resource is ResourceEvents or ResourceDeliveries, with a subresource behind a slash.
	Resource string
	// Namespace of the event or the deliveries.
	Namespace string
	// Name of the resource, where a rule may be about one alone; "" for all.
	Name string
}

func (a Access) group() string { return cmp.Or(a.Group, apiGroup) }

// Authorizer decides who may use the API.
type Authorizer interface {
	// Authorize returns nil if the sender of a request with this Authorization header may have access. Otherwise it
	// returns ErrUnauthenticated, a *ForbiddenError, ErrBusy, or another error if it could not find out; then the request
	// is refused, too. source is the client's address, to share by what is limited.
	Authorize(ctx context.Context, authorization, source string, access Access) error
}

// Identifier is an Authorizer that knows users.
type Identifier interface {
	Authorizer
	// Identify is Authorize, and returns the user as well once it is known, also with an error.
	Identify(ctx context.Context, authorization, source string, access Access) (*authenticationv1.UserInfo, error)
	// AuthorizeUser is Authorize for a user that was authenticated elsewhere.
	AuthorizeUser(ctx context.Context, user *authenticationv1.UserInfo, access Access) error
}

// ErrUnauthenticated is returned by an Authorizer for a missing or invalid token.
var ErrUnauthenticated = errors.New("the request carries no valid bearer token")

// ErrBusy is returned by an Authorizer that is asked about more at once than it may find out.
var ErrBusy = errors.New("too much is being authorized at once")

// ForbiddenError says that a valid token does not grant an access.
type ForbiddenError struct {
	// User that the token belongs to.
	User   string
	Access Access
}

// Error says which rule is missing.
func (e *ForbiddenError) Error() string {
	if e.Access.Name != "" {
		return fmt.Sprintf("user %q may not %s %s of %q in namespace %q: bind it there to a Role with apiGroups [%q], resources [%q], verbs [%q], and resourceNames [%q] or none",
			e.User, e.Access.Verb, e.Access.Resource, e.Access.Name, e.Access.Namespace, e.Access.group(), e.Access.Resource, e.Access.Verb, e.Access.Name)
	}
	return fmt.Sprintf("user %q may not %s %s in namespace %q: bind it there to a Role with apiGroups [%q], resources [%q], verbs [%q]",
		e.User, e.Access.Verb, e.Access.Resource, e.Access.Namespace, e.Access.group(), e.Access.Resource, e.Access.Verb)
}

// None is the Authorizer that lets everyone do everything. It is for local use.
type None struct{}

// Authorize returns nil.
func (None) Authorize(context.Context, string, string, Access) error { return nil }
