package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/cluster"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
)

var resource = schema.GroupResource{Resource: "secrets"}

// secrets behave as an API server's: a write goes by the resource version.
type secrets struct {
	mu    sync.Mutex
	known map[string]*corev1.Secret
	down  error
	calls int
}

func newSecrets(dispatcher string) *secrets {
	s := &secrets{known: map[string]*corev1.Secret{}}
	for _, name := range cluster.SecretNames(dispatcher) {
		s.known[name] = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1", Labels: map[string]string{"a": "b"}}}
	}
	return s
}

func (s *secrets) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	secret, ok := s.known[name]
	switch {
	case s.down != nil:
		return nil, s.down
	case !ok:
		return nil, apierrors.NewNotFound(resource, name)
	}
	return secret.DeepCopy(), nil
}

func (s *secrets) Patch(_ context.Context, name string, kind types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Secret, error) {
	var asked struct {
		Metadata struct{ ResourceVersion string }
		Data     map[string]*[]byte
	}
	if err := json.Unmarshal(patch, &asked); err != nil || kind != types.MergePatchType {
		return nil, apierrors.NewBadRequest(string(kind))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.known[name].DeepCopy()
	if next.ResourceVersion != asked.Metadata.ResourceVersion {
		return nil, apierrors.NewConflict(resource, name, errors.New("modified"))
	}
	version, err := strconv.Atoi(next.ResourceVersion)
	next.ResourceVersion = strconv.Itoa(version + 1)
	for key, value := range asked.Data {
		if value == nil {
			delete(next.Data, key)
			continue
		}
		if next.Data == nil {
			next.Data = map[string][]byte{}
		}
		next.Data[key] = *value
	}
	s.known[name] = next
	return next.DeepCopy(), err
}

func TestKeeper(t *testing.T) {
	t.Parallel()
	s := newSecrets("default")
	seedstest.Run(t, cluster.New(s, "default"))
	for name, secret := range s.known {
		if secret.Labels["a"] != "b" || !strings.HasPrefix(name, "eventflow-seeds-default-") {
			t.Errorf("%s has labels %v", name, secret.Labels)
		}
	}
}

// TestSeveralDispatchers: each finds what another has made, and what it has read before while the API server is down.
func TestSeveralDispatchers(t *testing.T) {
	t.Parallel()
	s := newSecrets("default")
	a, b := cluster.New(s, "default"), cluster.New(s, "default")
	record := func(i int) seeds.Record { return seeds.Record{Tenant: fmt.Sprint("clinic-", i), Seed: []byte{byte(i)}} }
	for i := range 100 {
		if err := a.Create(t.Context(), record(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		if err := b.Create(t.Context(), record(i)); !errors.Is(err, seeds.ErrExists) {
			t.Errorf("made again: %v", err)
		}
	}
	s.down = errors.New("down")
	for i := range 100 {
		if r, err := b.Get(t.Context(), record(i).Tenant); err != nil || r.Seed[0] != byte(i) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if _, err := b.Get(t.Context(), "unknown"); !errors.Is(err, s.down) {
		t.Errorf("an unknown tenant: %v", err)
	}
	s.down = nil
	if err := a.Delete(t.Context(), "clinic-7"); err != nil {
		t.Fatal(err)
	}
	if err := b.List(t.Context(), func(seeds.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "clinic-7"); !errors.Is(err, seeds.ErrNone) {
		t.Errorf("what another has deleted: %v", err)
	}
	calls := s.calls
	if _, err := b.Get(t.Context(), "clinic-8"); err != nil || s.calls != calls {
		t.Errorf("%d calls for what is known, %v", s.calls-calls, err)
	}
}

// TestNoSecretYet: the error says who has to make it.
func TestNoSecretYet(t *testing.T) {
	t.Parallel()
	k := cluster.New(&secrets{}, "default")
	if err := k.Create(t.Context(), seeds.Record{Tenant: "a", Seed: []byte{1}}); err == nil || !strings.Contains(err.Error(), "manager") {
		t.Errorf("got %v", err)
	}
}
