package subscription

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// namespacesServer is an API server that knows namespaces.
type namespacesServer struct {
	client.Reader
	uids   map[string]types.UID
	labels map[string]map[string]string
	err    error
	gets   int
}

func (s *namespacesServer) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	s.gets++
	if s.err != nil {
		return s.err
	}
	if s.uids[key.Name] == "" {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, key.Name)
	}
	found := object.(*metav1.PartialObjectMetadata)
	found.Name, found.UID, found.Labels = key.Name, s.uids[key.Name], s.labels[key.Name]
	return nil
}

// TestPolledNamespaces: a namespace is asked for once, its subscriptions are looked at when it became another or has other
// labels, and what was found last holds while the API server says nothing.
func TestPolledNamespaces(t *testing.T) {
	t.Parallel()
	server := &namespacesServer{uids: map[string]types.UID{"a": "1", "b": "2"}, labels: map[string]map[string]string{}}
	polled := NewPolledNamespaces(server)
	var changed []string
	polled.changed = func(_ context.Context, namespace client.Object) { changed = append(changed, namespace.GetName()) }
	is := func(name string, uid types.UID) {
		t.Helper()
		if found, err := polled.Get(t.Context(), name); err != nil || found.UID != uid {
			t.Errorf("%s is %v (%v), want %s", name, found, err, uid)
		}
	}
	is("a", "1")
	is("b", "2")
	is("a", "1")
	if _, err := polled.Get(t.Context(), "none"); !apierrors.IsNotFound(err) {
		t.Errorf("want NotFound, got %v", err)
	}
	if server.gets != 3 {
		t.Errorf("%d requests, want 3", server.gets)
	}
	look := func(want ...string) {
		t.Helper()
		changed = nil
		if err := polled.look(t.Context()); (err != nil) != (server.err != nil) {
			t.Error(err)
		}
		if len(changed) != len(want) || len(want) == 1 && changed[0] != want[0] {
			t.Errorf("changed: %v, want %v", changed, want)
		}
	}
	look()
	server.labels["b"] = map[string]string{"tier": "gold"}
	look("b")
	look()
	server.uids["a"] = "3"
	look("a")
	is("a", "3")
	delete(server.uids, "a")
	look()
	server.err = errors.New("unavailable")
	look()
	is("a", "3")
}
