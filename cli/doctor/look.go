package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	// mostSecrets and mostHosts bound what is looked up one by one.
	mostSecrets, mostHosts = 500, 200
	// lookups is how many are under way at once, and lookupTimeout how long one may take.
	lookups, lookupTimeout = 8, 3 * time.Second
	// page is how many objects one answer of the API server has at most.
	page = 500
)

// looker reads an installation.
type looker struct {
	client  client.Client
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	now     func() time.Time
	version string
	// namespace restricts subscriptions, and what they name; "" for all.
	namespace string
	in        *Installation
}

// The definitions that are read without their types.
var (
	definitionKind = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	apiServiceKind = schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"}
)

func newClient(cluster *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), storagev1.AddToScheme(scheme),
		authorizationv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper(nil) // no discovery, which an API that does not answer delays
	for scope, kinds := range map[meta.RESTScope][]schema.GroupVersionKind{
		meta.RESTScopeNamespace: {
			v1alpha1.GroupVersion.WithKind("WebhookSubscription"), v1alpha1.GroupVersion.WithKind("WebhookDispatcher"),
			appsv1.SchemeGroupVersion.WithKind("Deployment"), corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("Secret"),
			corev1.SchemeGroupVersion.WithKind("ConfigMap"), corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		},
		meta.RESTScopeRoot: {
			corev1.SchemeGroupVersion.WithKind("Namespace"), storagev1.SchemeGroupVersion.WithKind("StorageClass"),
			authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), definitionKind, apiServiceKind,
		},
	} {
		for _, kind := range kinds {
			mapper.Add(kind, scope)
		}
	}
	replays := v1alpha1.GroupVersion.WithResource("webhookreplays") // whose plural would be guessed wrong
	mapper.AddSpecific(v1alpha1.GroupVersion.WithKind("WebhookReplay"), replays, v1alpha1.GroupVersion.WithResource("webhookreplay"), meta.RESTScopeNamespace)
	return client.New(cluster, client.Options{Scheme: scheme, Mapper: mapper})
}

// look reads what the user may read. It fails only if the API server cannot be asked at all.
func (l *looker) look(ctx context.Context) (*Installation, error) {
	l.in = &Installation{
		Version: l.version, Now: l.now(), Unread: map[string]string{}, Definitions: map[string]Definition{},
		Secrets: map[client.ObjectKey]map[string][]byte{}, ConfigMaps: map[client.ObjectKey]map[string][]byte{}, Hosts: map[string]Host{},
	}
	ours := client.MatchingLabels{"app.kubernetes.io/name": "eventflow"}
	made := client.MatchingLabels{"app.kubernetes.io/managed-by": "eventflow-manager"}
	var subscriptions v1alpha1.WebhookSubscriptionList
	var dispatchers v1alpha1.WebhookDispatcherList
	var replays v1alpha1.WebhookReplayList
	var deployments, manager appsv1.DeploymentList
	var pods corev1.PodList
	var claims corev1.PersistentVolumeClaimList
	var classes storagev1.StorageClassList
	var namespaces corev1.NamespaceList
	for _, step := range []struct {
		group, resource string
		list            client.ObjectList
		options         []client.ListOption
		namespaced      bool
	}{
		{v1alpha1.GroupVersion.Group, "webhooksubscriptions", &subscriptions, []client.ListOption{client.InNamespace(l.namespace)}, true},
		{v1alpha1.GroupVersion.Group, "webhookdispatchers", &dispatchers, nil, false},
		{v1alpha1.GroupVersion.Group, "webhookreplays", &replays, []client.ListOption{client.InNamespace(l.namespace)}, true},
		{"apps", "deployments", &deployments, []client.ListOption{made}, false},
		{"apps", "deployments", &manager, []client.ListOption{client.MatchingLabels{"app.kubernetes.io/part-of": "eventflow"}}, false},
		{"", "pods", &pods, []client.ListOption{ours}, false},
		{"", "persistentvolumeclaims", &claims, []client.ListOption{made}, false},
		{"storage.k8s.io", "storageclasses", &classes, nil, false},
		{"", "namespaces", &namespaces, nil, false},
	} {
		namespace := ""
		if step.namespaced {
			namespace = l.namespace
		}
		if err := l.list(ctx, step.group, step.resource, namespace, step.list, step.options...); err != nil {
			return nil, err
		}
	}
	l.in.Subscriptions, l.in.Dispatchers, l.in.Pods = subscriptions.Items, dispatchers.Items, pods.Items
	l.in.Replays = replays.Items
	l.in.Claims, l.in.Classes, l.in.Namespaces = claims.Items, classes.Items, namespaces.Items
	for _, d := range slices.Concat(deployments.Items, manager.Items) {
		known := func(other appsv1.Deployment) bool { return other.Namespace == d.Namespace && other.Name == d.Name }
		if !slices.ContainsFunc(l.in.Deployments, known) {
			l.in.Deployments = append(l.in.Deployments, d)
		}
	}
	if err := errors.Join(l.readDefinitions(ctx), l.readAPIServices(ctx)); err != nil {
		return nil, err
	}
	l.readSecrets(ctx)
	l.resolveHosts(ctx)
	return l.in, nil
}

// list reads all objects, page by page, if a review says that the user may. What may not be read, or is no resource of the
// cluster, is unread.
func (l *looker) list(ctx context.Context, group, resource, namespace string, into client.ObjectList, options ...client.ListOption) error {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Group: group, Resource: resource, Namespace: namespace},
	}}
	if err := l.client.Create(ctx, review); err != nil {
		return fmt.Errorf("ask the API server whether %s may be listed: %w", resource, err)
	}
	if !review.Status.Allowed {
		l.in.Unread[resource] = "you may not list " + resource
		return nil
	}
	err := l.client.List(ctx, into, append(options, client.Limit(page))...)
	for err == nil && into.GetContinue() != "" {
		next := into.DeepCopyObject().(client.ObjectList)
		if err = l.client.List(ctx, next, append(options, client.Limit(page), client.Continue(into.GetContinue()))...); err != nil {
			break
		}
		var items, more []runtime.Object
		if items, err = meta.ExtractList(into); err == nil {
			if more, err = meta.ExtractList(next); err == nil {
				err = meta.SetList(into, append(items, more...))
			}
		}
		into.SetContinue(next.GetContinue())
	}
	if err != nil {
		l.in.Unread[resource] = err.Error()
	}
	return nil
}

func (l *looker) readDefinitions(ctx context.Context) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(definitionKind)
	if err := l.list(ctx, definitionKind.Group, "customresourcedefinitions", "", list); err != nil {
		return err
	}
	for _, item := range list.Items {
		d := Definition{Established: isTrue(item.Object, "Established")}
		versions, _, _ := unstructured.NestedSlice(item.Object, "spec", "versions")
		for _, v := range versions {
			if one, ok := v.(map[string]any); ok {
				d.Versions = append(d.Versions, fmt.Sprint(one["name"]))
			}
		}
		l.in.Definitions[item.GetName()] = d
	}
	return nil
}

func (l *looker) readAPIServices(ctx context.Context) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(apiServiceKind)
	if err := l.list(ctx, apiServiceKind.Group, "apiservices", "", list); err != nil {
		return err
	}
	for _, item := range list.Items {
		a := APIService{Name: item.GetName(), Available: isTrue(item.Object, "Available")}
		name, _, _ := unstructured.NestedString(item.Object, "spec", "service", "name")
		namespace, _, _ := unstructured.NestedString(item.Object, "spec", "service", "namespace")
		if name != "" {
			a.Service = namespace + "/" + name
		}
		if c := conditionOf(item.Object, "Available"); c != nil {
			a.Reason, _ = c["reason"].(string)
			a.Message, _ = c["message"].(string)
		}
		l.in.APIServices = append(l.in.APIServices, a)
	}
	return nil
}

func isTrue(object map[string]any, kind string) bool {
	return conditionOf(object, kind)["status"] == "True"
}

func conditionOf(object map[string]any, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(object, "status", "conditions")
	for _, c := range conditions {
		if one, ok := c.(map[string]any); ok && one["type"] == kind {
			return one
		}
	}
	return nil
}

// readSecrets reads the Secrets and ConfigMaps that objects name, one by one: nobody needs the right to list them.
func (l *looker) readSecrets(ctx context.Context) {
	var mu sync.Mutex
	each(keysOf(l.in.namedSecrets(), mostSecrets), func(key client.ObjectKey) {
		secret := &corev1.Secret{}
		err := l.client.Get(ctx, key, secret)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case apierrors.IsNotFound(err):
			l.in.Secrets[key] = nil
		case err != nil:
			l.in.Unread["secrets"] = err.Error()
		default:
			l.in.Secrets[key] = present(secret.Data)
		}
	})
	each(keysOf(l.in.namedConfigMaps(), mostSecrets), func(key client.ObjectKey) {
		found := &corev1.ConfigMap{}
		err := l.client.Get(ctx, key, found)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case apierrors.IsNotFound(err):
			l.in.ConfigMaps[key] = nil
		case err != nil:
			l.in.Unread["configmaps"] = err.Error()
		default:
			values := map[string][]byte{}
			for name, text := range found.Data {
				values[name] = []byte(text)
			}
			l.in.ConfigMaps[key] = values
		}
	})
}

// present is never nil, which stands for a Secret that does not exist.
func present(data map[string][]byte) map[string][]byte {
	if data == nil {
		return map[string][]byte{}
	}
	return data
}

// resolveHosts resolves the names of endpoints, as this machine does.
func (l *looker) resolveHosts(ctx context.Context) {
	var mu sync.Mutex
	hosts := map[client.ObjectKey]bool{}
	for i := range l.in.Subscriptions {
		if e, ok := endpointOf(&l.in.Subscriptions[i]); ok && !inCluster(e.host) {
			hosts[client.ObjectKey{Name: e.host}] = true
		}
	}
	each(keysOf(hosts, mostHosts), func(key client.ObjectKey) {
		found := Host{}
		if a, err := netip.ParseAddr(key.Name); err == nil {
			found.Addresses = []netip.Addr{a}
		} else {
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			found.Addresses, err = l.resolve(ctx, key.Name)
			dns, ok := errors.AsType[*net.DNSError](err)
			if found.Unknown = ok && dns.IsNotFound; err != nil && !found.Unknown {
				return // that DNS does not answer here says nothing of the dispatcher's
			}
		}
		mu.Lock()
		defer mu.Unlock()
		l.in.Hosts[key.Name] = found
	})
}

func keysOf(all map[client.ObjectKey]bool, most int) []client.ObjectKey {
	keys := make([]client.ObjectKey, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b client.ObjectKey) int { return strings.Compare(a.String(), b.String()) })
	return keys[:min(len(keys), most)]
}

// each calls f for each key, some at once.
func each(keys []client.ObjectKey, f func(client.ObjectKey)) {
	var all sync.WaitGroup
	places := make(chan struct{}, lookups)
	for _, key := range keys {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			f(key)
		})
	}
	all.Wait()
}
