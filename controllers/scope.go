package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// scope is where a manager with Roles alone works: in its own namespace, and in those that it was told to and may. One that
// is not granted, or not there, does not keep the others from being worked on.
type scope struct {
	client  client.Client
	logger  logr.Logger
	home    string
	granted []string // home among them
	refused []string
}

// scopeChecked is how often it is asked whether a namespace that was refused is granted.
const scopeChecked = 10 * time.Second

// errScopeGrew ends a manager: the next one works on the namespace that was granted, too.
var errScopeGrew = errors.New("another namespace was granted")

// scopeAsked stand for the role: a ServiceAccount that may do these was given it as a whole.
var scopeAsked = []authorizationv1.ResourceAttributes{
	{Verb: "watch", Group: v1alpha1.GroupVersion.Group, Resource: "webhooksubscriptions"},
	{Verb: "watch", Group: v1alpha1.GroupVersion.Group, Resource: "webhookdispatchers"},
	{Verb: "watch", Group: v1alpha1.GroupVersion.Group, Resource: "webhookreplays"},
	{Verb: "watch", Resource: "secrets"},
	{Verb: "watch", Resource: "services"},
}

// findScope asks the API server which of the namespaces are granted. It returns nil if the manager works on all.
func findScope(ctx context.Context, cluster *rest.Config, o Options) (*scope, error) {
	if len(o.Namespaces) == 0 {
		return nil, nil
	}
	c, err := client.New(cluster, client.Options{Scheme: newScheme()})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	s := &scope{client: c, logger: o.Logger, home: o.Namespace, granted: []string{o.Namespace}}
	for _, namespace := range slices.Compact(slices.Sorted(slices.Values(o.Namespaces))) {
		if namespace == s.home {
			continue
		}
		granted, err := s.ask(ctx, namespace)
		switch {
		case err != nil:
			return nil, err
		case granted:
			s.granted = append(s.granted, namespace)
		default:
			s.refused = append(s.refused, namespace)
			s.logger.Info("A namespace is left out, because the manager may not work on it: apply config/components/tenant-namespace to it", "namespace", namespace, "role", names.TenantRole)
		}
	}
	return s, nil
}

func (s *scope) ask(ctx context.Context, namespace string) (bool, error) {
	for _, asked := range scopeAsked {
		asked.Namespace = namespace
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &asked}}
		if err := s.client.Create(ctx, review); err != nil {
			return false, fmt.Errorf("ask what the manager may do in namespace %s: %w", namespace, err)
		}
		if !review.Status.Allowed {
			return false, nil
		}
	}
	return true, nil
}

// namespaces are those that are worked on; none stands for all.
func (s *scope) namespaces() []string {
	if s == nil {
		return nil
	}
	return s.granted
}

// NeedLeaderElection lets each of several managers know where it works.
func (s *scope) NeedLeaderElection() bool { return false }

// Start waits until a namespace that was refused is granted, and then returns errScopeGrew.
func (s *scope) Start(ctx context.Context) error {
	tick := time.NewTicker(scopeChecked)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, namespace := range s.refused {
			if granted, err := s.ask(ctx, namespace); err == nil && granted { // an error passes, and it is asked again
				s.logger.Info("A namespace was granted", "namespace", namespace)
				return errScopeGrew
			}
		}
	}
}

// confine makes a cache hold what is in the scope alone, and know of nothing else.
func (s *scope) confine(options *cache.Options) {
	options.DefaultNamespaces = make(map[string]cache.Config, len(s.granted))
	for _, namespace := range s.granted {
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
}

// newCache makes such a cache. What is beyond it does not exist for the manager: a subscription whose dispatcher is there
// is told so.
func (s *scope) newCache(config *rest.Config, options cache.Options) (cache.Cache, error) {
	made, err := cache.New(config, options)
	if err != nil {
		return nil, err
	}
	return &confined{Cache: made, namespaces: s.granted, options: options}, nil
}

type confined struct {
	cache.Cache
	namespaces []string
	options    cache.Options
}

func (c *confined) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if key.Namespace == "" || slices.Contains(c.namespaces, key.Namespace) {
		return c.Cache.Get(ctx, key, object, options...)
	}
	kind, err := apiutil.GVKForObject(object, c.options.Scheme)
	if err != nil {
		return fmt.Errorf("find the kind of an object: %w", err)
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, key.Name)
}
