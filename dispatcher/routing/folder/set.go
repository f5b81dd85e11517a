package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Set is what manifests declare, for tools that read them once. Its zero value is not usable; NewSet makes one.
type Set struct {
	build         *build
	subscriptions []*v1alpha1.WebhookSubscription
	sources       map[*v1alpha1.WebhookSubscription]string
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{build: newBuild(routing.Policy{}, nil), sources: make(map[*v1alpha1.WebhookSubscription]string)}
}

// Add reads the text of a file, by the rules of a Source. name is that of the file; one that ends in .json holds JSON. It
// returns what is wrong, each document for itself, and takes up the rest.
func (s *Set) Add(name string, text []byte) (problems []routing.Problem) {
	parsed, err := parse(name, text)
	if err != nil {
		for _, problem := range problemsOf(err) {
			problems = append(problems, routing.Problem{Source: name, Reason: ReasonFileUnusable, Message: problem.Error()})
		}
	}
	b := s.build
	b.problems = nil
	b.addValues(name, parsed)
	for _, sub := range parsed.subscriptions {
		if id := (resource{sub.Namespace, sub.Name}); !b.declare(name, id, routing.Identity(sub)) {
			continue
		}
		s.subscriptions = append(s.subscriptions, sub)
		s.sources[sub] = name
	}
	return append(problems, b.problems...)
}

// Subscriptions are those of the set, in the order in which they were added.
func (s *Set) Subscriptions() []*v1alpha1.WebhookSubscription { return s.subscriptions }

// Source is the file that declares a subscription of the set.
func (s *Set) Source(sub *v1alpha1.WebhookSubscription) string { return s.sources[sub] }

// Sources are the Secrets and ConfigMaps of a namespace.
func (s *Set) Sources(namespace string) routing.Sources { return s.build.sources(namespace) }

// ReadFile reads a manifest within the bound that a Source has. Its error names no content.
func ReadFile(path string) ([]byte, error) {
	text, err := read(path)
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err // the path stands in the message already
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return text, nil
}

// Names returns the names of the manifests in a folder, sorted as a Source takes them.
func Names(dir string) ([]string, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(names)), nil
}
