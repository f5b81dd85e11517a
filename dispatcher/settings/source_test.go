package settings

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// secretOf holds the settings of the dispatcher "default" with the given generation, or text that is none.
func secretOf(t *testing.T, generation int64, text string) *corev1.Secret {
	t.Helper()
	s := Defaults()
	s.Generation = generation
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if text != "" {
		b = []byte(text)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "flow", Name: SecretName("default")}, Data: map[string][]byte{Key: b}}
}

// follow runs a source, and returns what it uses, and a function that ends it.
func follow(t *testing.T, secrets corev1client.SecretInterface, last *LastGood) (used <-chan *Settings, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	all, done := make(chan *Settings, 16), make(chan struct{})
	source := Source{Secrets: secrets, Dispatcher: "default", LastGood: last, Log: logr.Discard()}
	go func() { defer close(done); source.Run(ctx, func(s *Settings) { all <- s }) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return all, stop
}

func next(t *testing.T, used <-chan *Settings, want int64) {
	t.Helper()
	select {
	case s := <-used:
		if s.Generation != want {
			t.Errorf("generation %d is used, want %d", s.Generation, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("generation %d is not used", want)
	}
}

// TestSourceFollowsTheSecret: what is there, each change, nothing that cannot be used, and the last ones after all that.
func TestSourceFollowsTheSecret(t *testing.T) {
	t.Parallel()
	secrets := fake.NewClientset().CoreV1().Secrets("flow")
	write := func(secret *corev1.Secret) {
		t.Helper()
		_, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
		if err != nil {
			_, err = secrets.Create(t.Context(), secret, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	last := NewLastGood(filepath.Join(t.TempDir(), Key))
	write(secretOf(t, 1, ""))
	used, stop := follow(t, secrets, last)
	next(t, used, 1)
	write(secretOf(t, 2, ""))
	next(t, used, 2)
	write(secretOf(t, 0, `{"format":9}`))
	if err := secrets.Delete(t.Context(), SecretName("default"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	write(secretOf(t, 3, ""))
	next(t, used, 3)
	stop()
	if kept, err := last.Load(); err != nil || kept.Generation != 3 {
		t.Errorf("on disk are %+v (%v)", kept, err)
	}

	away := fake.NewClientset().CoreV1().Secrets("flow") // whose API server knows nothing
	used, _ = follow(t, away, last)
	next(t, used, 3)
}
