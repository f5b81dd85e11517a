package folder

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// defaultNamespace is that of manifests which name none, as kubectl has it.
const defaultNamespace = "default"

// The reasons of problems that are not those of a subscription's condition.
const (
	// ReasonFileUnusable: a file cannot be read or parsed.
	ReasonFileUnusable = "FileUnusable"
	// ReasonDuplicate: a resource is declared more than once; the first in the order of files is used.
	ReasonDuplicate = "Duplicate"
)

// resource names a resource within its kind.
type resource struct{ namespace, name string }

// build makes one table of what the files declare.
type build struct {
	policy   routing.Policy
	previous map[string]*routing.Entry // by identity: what was routed before

	secrets    map[resource]map[string][]byte
	configMaps map[resource]map[string][]byte
	tenants    map[string]string         // uids of namespaces, by name
	declared   map[any]bool              // resources, and subscriptions' identities
	entries    map[string]*routing.Entry // by identity
	problems   []routing.Problem
}

func newBuild(policy routing.Policy, previous map[string]*routing.Entry) *build {
	return &build{
		policy:     policy,
		previous:   previous,
		secrets:    make(map[resource]map[string][]byte),
		configMaps: make(map[resource]map[string][]byte),
		tenants:    make(map[string]string),
		declared:   make(map[any]bool),
		entries:    make(map[string]*routing.Entry),
	}
}

// incomplete reports whether a file may declare what nobody could read yet.
func incomplete(files map[string]*file) bool {
	for _, f := range files {
		if f.content == nil || f.partial {
			return true
		}
	}
	return false
}

// compile turns the files' content into entries, by identity, and says what is wrong with it.
func compile(files map[string]*file, policy routing.Policy, previous map[string]*routing.Entry) (map[string]*routing.Entry, []routing.Problem) {
	b := newBuild(policy, previous)
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if err := files[name].err; err != nil {
			for _, problem := range problemsOf(err) {
				b.problems = append(b.problems, routing.Problem{Source: name, Reason: ReasonFileUnusable, Message: problem.Error()})
			}
		}
		b.addValues(name, files[name].content)
	}
	for _, name := range names {
		b.addSubscriptions(name, files[name].content)
	}
	for _, name := range names {
		if f := files[name]; f.err != nil && (f.content == nil || f.partial) {
			b.carryOver(name)
		}
	}
	slices.SortStableFunc(b.problems, func(x, y routing.Problem) int {
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return b.entries, b.problems
}

// addValues takes up what subscriptions may refer to.
func (b *build) addValues(source string, c *content) {
	if c == nil {
		return
	}
	for _, namespace := range c.namespaces {
		if b.tenants[namespace.Name] == "" {
			b.tenants[namespace.Name] = string(namespace.UID)
		}
	}
	for _, configMap := range c.configMaps {
		id := resource{configMap.Namespace, configMap.Name}
		if b.configMaps[id] != nil {
			b.report(source, id, ReasonDuplicate, "the ConfigMap is declared twice: the first is used; remove one")
			continue
		}
		b.configMaps[id] = dataOf(configMap.BinaryData, configMap.Data)
	}
	for _, secret := range c.secrets {
		id := resource{secret.Namespace, secret.Name}
		if b.secrets[id] != nil {
			b.report(source, id, ReasonDuplicate, "the Secret is declared twice: the first is used; remove one")
			continue
		}
		b.secrets[id] = dataOf(secret.Data, secret.StringData)
	}
}

// dataOf returns all values of a Secret or ConfigMap; a text goes before bytes, as an API server has it.
func dataOf(binary map[string][]byte, texts map[string]string) map[string][]byte {
	data := make(map[string][]byte, len(binary)+len(texts))
	maps.Copy(data, binary)
	for key, value := range texts {
		data[key] = []byte(value)
	}
	return data
}

func (b *build) addSubscriptions(source string, c *content) {
	if c == nil {
		return
	}
	for _, sub := range c.subscriptions {
		if b.declare(source, resource{sub.Namespace, sub.Name}, routing.Identity(sub)) {
			b.addSubscription(source, sub)
		}
	}
}

// declare reports whether a subscription is declared for the first time.
func (b *build) declare(source string, id resource, identity string) bool {
	if b.declared[id] || b.declared[identity] {
		b.report(source, id, ReasonDuplicate, "the WebhookSubscription, or its uid, is declared twice: the first is used; remove one")
		return false
	}
	b.declared[id], b.declared[identity] = true, true
	return true
}

// sources are the Secrets and ConfigMaps that files declare in a namespace.
func (b *build) sources(namespace string) routing.Sources {
	of := func(all map[resource]map[string][]byte) func(string) (map[string][]byte, bool, error) {
		return func(name string) (map[string][]byte, bool, error) {
			data, found := all[resource{namespace, name}]
			return data, found, nil
		}
	}
	return routing.Sources{Secrets: of(b.secrets), ConfigMaps: of(b.configMaps)}
}

func (b *build) addSubscription(source string, sub *v1alpha1.WebhookSubscription) {
	id, identity := resource{sub.Namespace, sub.Name}, routing.Identity(sub)
	entry, rejection, err := routing.Compile(sub, b.sources(sub.Namespace), b.policy)
	if err != nil { // nothing in memory fails to be read
		rejection = &routing.Rejection{Reason: v1alpha1.ReasonInvalidSpec, Message: err.Error()}
	}
	if rejection != nil {
		b.report(source, id, rejection.Reason, rejection.Message)
		entry = routing.Hold(b.previous[identity], routing.Generation(sub), rejection.Reason)
	}
	if entry == nil {
		return
	}
	entry.Source = source
	entry.Tenant = b.tenants[sub.Namespace]
	if before := b.previous[identity]; reflect.DeepEqual(before, entry) {
		entry = before // so that its route stays the one it was
	}
	b.entries[identity] = entry
}

// carryOver keeps what an earlier process routed from a file whose last good content this one never saw.
func (b *build) carryOver(source string) {
	for _, identity := range slices.Sorted(maps.Keys(b.previous)) {
		entry := b.previous[identity]
		if entry.Source == source && b.entries[identity] == nil && !b.declared[resource{entry.Namespace, entry.Name}] {
			b.entries[identity] = entry
		}
	}
}

func (b *build) report(source string, id resource, reason, message string) {
	b.problems = append(b.problems, routing.Problem{Namespace: id.namespace, Name: id.name, Source: source, Reason: reason, Message: message})
}

// routes returns a route for each entry, by identity. Those of entries that are the same as before are the same as
// before.
func routes(entries, before map[string]*routing.Entry, beforeRoutes map[string]*routing.Route) (map[string]*routing.Route, error) {
	built := make(map[string]*routing.Route, len(entries))
	for identity, entry := range entries {
		if route := beforeRoutes[identity]; route != nil && before[identity] == entry {
			built[identity] = route
			continue
		}
		route, err := entry.Route()
		if err != nil {
			return nil, fmt.Errorf("build the table: %w", err)
		}
		built[identity] = route
	}
	return built, nil
}
