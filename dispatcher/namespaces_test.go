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
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// namespaceServer has the namespaces whose names begin with "real", and takes 20 ms for each answer.
type namespaceServer struct {
	asked, at, most atomic.Int32
	down            atomic.Bool
	made            atomic.Int32 // how often the namespaces were made again
}

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
		uid := fmt.Sprint("uid-", s.made.Load(), "-", name)
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
}

// TestNamesMadeUpAreNoFlood: a burst of names is none at the API server, and delays no other client.
func TestNamesMadeUpAreNoFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &namespaceServer{}
		n := newNamespaces(server)
		if _, known, err := n.identify(t.Context(), "real", "other"); err != nil || !known {
			t.Fatalf("got %v, %v", known, err)
		}
		const names = 5000
		results := make(chan error, names)
		for i := range names {
			go func() {
				_, known, err := n.identify(t.Context(), fmt.Sprint("made-up-", i), "flood")
				if err == nil && known {
					err = errors.New("a name that was made up is known")
				}
				results <- err
			}()
		}
		synctest.Wait()
		started := time.Now()
		if _, known, err := n.identify(t.Context(), "real", "other"); err != nil || !known || time.Since(started) > 0 {
			t.Errorf("a known one: %v, %v after %v", known, err, time.Since(started))
		}
		if _, known, err := n.identify(t.Context(), "real-2", "other"); err != nil || !known || time.Since(started) > time.Second {
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
			_, _, err := n.identify(ctx, "real", "a")
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
		for range 3 {
			if _, known, err := n.identify(t.Context(), "real", "b"); err != nil || !known {
				t.Errorf("got %v, %v", known, err)
			}
			if _, known, err := n.identify(t.Context(), "made-up", "b"); err != nil || known {
				t.Errorf("got %v, %v", known, err)
			}
		}
		if asked := server.asked.Load(); asked != 2 {
			t.Errorf("asked %d times about two names", asked)
		}
		server.down.Store(true)
		if _, known, err := n.identify(t.Context(), "made-up-2", "b"); err != nil || !known {
			t.Errorf("in doubt: got %v, %v", known, err)
		}
	})
}

// TestANamespaceThatIsMadeAgainIsAnotherTenant: its name's tenant changes within seconds, also if nobody else says so; while
// the API server cannot be asked, it is the one that it was.
func TestANamespaceThatIsMadeAgainIsAnotherTenant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &namespaceServer{}
		d := &dispatcher{Options: Options{Routes: routesKubernetes}, namespaces: newNamespaces(server)}
		tenant := func(namespace string) string {
			t.Helper()
			tenant, known, err := d.tenant(t.Context(), namespace, "a")
			if err != nil || !known {
				t.Errorf("%s: known %t, %v", namespace, known, err)
			}
			return tenant
		}
		if got := tenant("real"); got != "uid-0-real" {
			t.Errorf("the tenant is %q", got)
		}
		server.made.Add(1)
		<-time.After(freshFor)
		if got := tenant("real"); got != "uid-1-real" {
			t.Errorf("the tenant of the namespace that was made again is %q", got)
		}
		server.down.Store(true)
		<-time.After(time.Minute)
		asked := server.asked.Load()
		for range 10 {
			if got := tenant("real"); got != "uid-1-real" {
				t.Errorf("while the API server is down the tenant is %q", got)
			}
		}
		if n := server.asked.Load() - asked; n != 1 {
			t.Errorf("asked %d times while the API server is down", n)
		}
		if got := tenant("real-unseen"); got != "name/real-unseen" {
			t.Errorf("the tenant of a namespace that was never seen is %q", got)
		}
		table, err := routing.NewTable([]*routing.Route{{Identity: "a", Namespace: "real-unseen", Name: "a", Endpoint: &engine.Endpoint{Tenant: "uid-of-the-table"}}})
		if err != nil {
			t.Fatal(err)
		}
		d.table.Store(table)
		if got := tenant("real-unseen"); got != "uid-of-the-table" {
			t.Errorf("the tenant of a namespace that the table has is %q", got)
		}
	})
}
