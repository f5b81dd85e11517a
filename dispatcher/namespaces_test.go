package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
)

// namespaceServer has the namespaces whose names begin with "real", and takes 20 ms for each answer.
type namespaceServer struct {
	kubernetes.Interface
	typed.CoreV1Interface
	typed.NamespaceInterface
	asked, at, most atomic.Int32
	down            atomic.Bool
}

func (s *namespaceServer) CoreV1() typed.CoreV1Interface        { return s }
func (s *namespaceServer) Namespaces() typed.NamespaceInterface { return s }

func (s *namespaceServer) Get(ctx context.Context, name string, _ metav1.GetOptions) (*corev1.Namespace, error) {
	s.asked.Add(1)
	s.most.Store(max(s.most.Load(), s.at.Add(1)))
	defer s.at.Add(-1)
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	if strings.HasPrefix(name, "real") {
		return &corev1.Namespace{}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
}

// TestNamesMadeUpAreNoFlood: a burst of names is none at the API server, and delays no other client.
func TestNamesMadeUpAreNoFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &namespaceServer{}
		n := newNamespaces(server)
		if known, err := n.exists(t.Context(), "real", "other"); err != nil || !known {
			t.Fatalf("got %v, %v", known, err)
		}
		const names = 5000
		results := make(chan error, names)
		for i := range names {
			go func() {
				known, err := n.exists(t.Context(), fmt.Sprint("made-up-", i), "flood")
				if err == nil && known {
					err = errors.New("a name that was made up is known")
				}
				results <- err
			}()
		}
		synctest.Wait()
		started := time.Now()
		if known, err := n.exists(t.Context(), "real", "other"); err != nil || !known || time.Since(started) > 0 {
			t.Errorf("a known one: %v, %v after %v", known, err, time.Since(started))
		}
		if known, err := n.exists(t.Context(), "real-2", "other"); err != nil || !known || time.Since(started) > time.Second {
			t.Errorf("another client's: %v, %v after %v", known, err, time.Since(started))
		}
		busy := 0
		for range names {
			if err := <-results; errors.Is(err, ingest.ErrBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if asked := server.asked.Load(); asked > 300 || server.most.Load() > namespacePlaces || busy < names-300 {
			t.Errorf("asked %d times, %d at once, %d were busy", asked, server.most.Load(), busy)
		}
	})
}

func TestNamespaceQuestions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &namespaceServer{}
		n := newNamespaces(server)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := n.exists(ctx, "real", "a")
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
		for range 3 {
			if known, err := n.exists(t.Context(), "real", "b"); err != nil || !known {
				t.Errorf("got %v, %v", known, err)
			}
			if known, err := n.exists(t.Context(), "made-up", "b"); err != nil || known {
				t.Errorf("got %v, %v", known, err)
			}
		}
		if asked := server.asked.Load(); asked != 2 {
			t.Errorf("asked %d times about two names", asked)
		}
		server.down.Store(true)
		if known, err := n.exists(t.Context(), "made-up-2", "b"); err != nil || !known {
			t.Errorf("in doubt: got %v, %v", known, err)
		}
	})
}
