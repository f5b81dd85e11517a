package subscription

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// slowServer is an API server that has one Secret, and takes its time.
type slowServer struct {
	client.Reader
	mu     sync.Mutex
	secret *corev1.Secret // nil if there is none
	err    error
	reads  int
}

func (s *slowServer) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	<-time.After(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.err != nil {
		return s.err
	}
	if s.secret == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	}
	s.secret.DeepCopyInto(object.(*corev1.Secret))
	return nil
}

func (s *slowServer) set(version, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: version}, Data: map[string][]byte{"k": []byte(value)}}
}

// ask has n subscriptions ask at once.
func ask(t *testing.T, s *valueReader, n int, version, want string) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			data, found, _, err := s.get(t.Context(), client.ObjectKey{Name: "s"}, version)
			if err != nil || found != (want != "") || string(data["k"]) != want {
				t.Errorf("got %q, %v, %v; want %q", data["k"], found, err, want)
			}
		})
	}
	all.Wait()
}

// TestSecretOfManySubscriptions: one that 500 subscriptions name is read once, and once again after it was rotated.
func TestSecretOfManySubscriptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &slowServer{}
		server.set("1", "first")
		s := newValueReader(SecretLabel{}.only(fetchSecrets(server)))
		wantReads := func(want int) {
			t.Helper()
			if server.reads != want {
				t.Errorf("%d reads, want %d", server.reads, want)
			}
		}
		ask(t, s, 500, "u/1", "first")
		ask(t, s, 500, "u/1", "first")
		wantReads(1)

		server.set("2", "second")
		ask(t, s, 500, "u/2", "second")
		wantReads(2)

		server.set("4", "fourth") // the cache of metadata is behind
		ask(t, s, 500, "u/3", "fourth")
		ask(t, s, 500, "u/4", "fourth")
		wantReads(3)

		<-time.After(secretsKept)
		ask(t, s, 1, "u/4", "fourth")
		wantReads(4)

		<-time.After(3 * secretsKept)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.kept) != 0 || s.bytes != 0 || s.sweep != nil {
			t.Errorf("%d Secrets of %d bytes are kept for good", len(s.kept), s.bytes)
		}
	})
}

func TestSecretThatIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &slowServer{}
		s := newValueReader(SecretLabel{}.only(fetchSecrets(server)))
		ask(t, s, 500, "/", "")
		if server.reads != 1 {
			t.Errorf("%d reads of a Secret that does not exist", server.reads)
		}
		server.set("1", "first") // and the cache of metadata does not show it yet
		<-time.After(absenceKept)
		ask(t, s, 10, "/", "first")
		ask(t, s, 10, "u/1", "first")
		if server.reads != 2 {
			t.Errorf("%d reads, want 2", server.reads)
		}
		<-time.After(2 * secretsKept)
	})
}

// TestSecretThatCannotBeRead: an error is not kept.
func TestSecretThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &slowServer{err: errors.New("unavailable")}
		s := newValueReader(SecretLabel{}.only(fetchSecrets(server)))
		if _, _, _, err := s.get(t.Context(), client.ObjectKey{Name: "s"}, "u/1"); !errors.Is(err, server.err) {
			t.Errorf("got %v", err)
		}
		server.err = nil
		server.set("1", "first")
		ask(t, s, 1, "u/1", "first")
		<-time.After(2 * secretsKept)
	})
}

// TestSecretsKeptAreBounded: however large they are, and however many.
func TestSecretsKeptAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &slowServer{}
		server.set("1", string(make([]byte, 1<<20)))
		s := newValueReader(SecretLabel{}.only(fetchSecrets(server)))
		for i := range 100 {
			if _, _, _, err := s.get(t.Context(), client.ObjectKey{Name: fmt.Sprint(i)}, "u/1"); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			bytes, kept := s.bytes, len(s.kept)
			s.mu.Unlock()
			if bytes > maxSecretBytes || kept<<20 > maxSecretBytes {
				t.Fatalf("%d bytes of %d Secrets are kept", bytes, kept)
			}
		}
		<-time.After(3 * secretsKept)
	})
}
