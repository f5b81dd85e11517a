package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

func TestStoreReason(t *testing.T) {
	t.Parallel()
	notOpen := func(kind error) error { return fmt.Errorf("open: %w", errors.Join(store.ErrNotOpen, kind)) }
	for name, test := range map[string]struct {
		err        error
		wantReason string
	}{
		"ready":             {nil, "StoreReady"},
		"full":              {fmt.Errorf("append: %w", store.ErrFull), "StoreFull"},
		"full at the start": {notOpen(store.ErrFull), "StoreFull"},
		"read only":         {fmt.Errorf("append: %w", store.ErrReadOnly), "StoreReadOnly"},
		"locked":            {notOpen(store.ErrLocked), "StoreLocked"},
		"damaged":           {notOpen(store.ErrDamaged), "StoreDamaged"},
		"newer program":     {notOpen(store.ErrNewer), "StoreNewer"},
		"not allowed":       {notOpen(fs.ErrPermission), "StoreNotOpen"},
		"old":               {fmt.Errorf("open: %w", postgres.ErrTooOld), "DatabaseTooOld"},
		"newer":             {fmt.Errorf("open: %w", postgres.ErrNewerSchema), "SchemaNewer"},
		"not migrated":      {fmt.Errorf("open: %w", postgres.ErrNotMigrated), "SchemaNotMigrated"},
		"unreachable":       {fmt.Errorf("open: %w", postgres.ErrUnreachable), "DatabaseUnreachable"},
		"anything":          {errors.New("password=secret"), "DatabaseUnreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := storeReason(test.err); got != test.wantReason {
				t.Errorf("got %s, want %s", got, test.wantReason)
			}
		})
	}
}

// dispatcherServer keeps the status that is applied to one WebhookDispatcher.
type dispatcherServer struct {
	dynamic.ResourceInterface
	applied []v1alpha1.WebhookDispatcher
}

func (s *dispatcherServer) Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error) {
	return &unstructured.Unstructured{Object: map[string]any{}}, nil
}

func (s *dispatcherServer) Patch(_ context.Context, _ string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*unstructured.Unstructured, error) {
	var applied v1alpha1.WebhookDispatcher
	if err := json.Unmarshal(data, &applied); err != nil {
		return nil, err
	}
	s.applied = append(s.applied, applied)
	return &unstructured.Unstructured{}, nil
}

// TestUsageIsShown: the tenants that use most are in the status, and a change of them is written at most once a minute.
func TestUsageIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &dispatcherServer{}
		r := &StoreReporter{dispatcher: server, name: "default", logger: logr.Discard()}
		r.ShowVersion("v1.2.3")
		pending := int64(0)
		r.ShowUsage(func() []v1alpha1.TenantUsage {
			pending++
			return []v1alpha1.TenantUsage{{Namespace: "clinic-a", PendingDeliveries: pending, PendingBytes: 100}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		r.Run(ctx, func() error { return nil })
		if n := len(server.applied); n < 8 || n > 11 {
			t.Errorf("%d writes in ten minutes, want one a minute", n)
		}
		for _, d := range server.applied {
			if len(d.Status.LargestTenants) != 1 || d.Status.LargestTenants[0].Namespace != "clinic-a" || d.Status.Store.Reason != v1alpha1.ReasonStoreReady || d.Status.Version != "v1.2.3" {
				t.Fatalf("applied %+v", d.Status)
			}
		}
	})
}

// sharedStatus is the status of one WebhookDispatcher that several pods apply to as the same field owner.
type sharedStatus struct {
	dynamic.ResourceInterface
	mu     sync.Mutex
	status v1alpha1.WebhookDispatcherStatus
	writes int
}

func (s *sharedStatus) now() (v1alpha1.WebhookDispatcherStatus, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.writes
}

func (s *sharedStatus) Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error) {
	status, _ := s.now()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.WebhookDispatcher{Status: status})
	return &unstructured.Unstructured{Object: object}, err
}

func (s *sharedStatus) Patch(_ context.Context, _ string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*unstructured.Unstructured, error) {
	var applied v1alpha1.WebhookDispatcher
	if err := json.Unmarshal(data, &applied); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = applied.Status // all that the owner had and does not apply again goes
	s.writes++
	return &unstructured.Unstructured{}, nil
}

// TestLastWordIsOfALivePod: pods share one status. What one said that is gone does not stay, and one that starts takes
// nothing from the others.
func TestLastWordIsOfALivePod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shared := &sharedStatus{}
		pod := func(version string, generation int64) *StoreReporter {
			r := &StoreReporter{dispatcher: shared, name: "default", logger: logr.Discard()}
			r.ShowVersion(version)
			r.ShowSettings(func() int64 { return generation })
			return r
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			pod("v2", 7).Run(ctx, func() error { return nil })
		}()
		synctest.Wait()

		pod("v1", 0).Report(ctx, postgres.ErrUnreachable) // and ends
		if status, _ := shared.now(); status.SettingsGeneration != 7 || status.Store.Reason != v1alpha1.ReasonDatabaseUnreachable {
			t.Errorf("a pod that started left %+v, want generation 7 and what it said of the store", status)
		}
		<-time.After(lookPause + 2*storePause)
		status, writes := shared.now()
		if status.Store.Reason != v1alpha1.ReasonStoreReady || status.Version != "v2" || status.SettingsGeneration != 7 {
			t.Errorf("the pod that is left says %+v, want StoreReady, v2 and 7", status)
		}
		<-time.After(10 * lookPause)
		if _, now := shared.now(); now != writes {
			t.Errorf("%d writes of what stands, want none", now-writes)
		}
		cancel()
		<-done
	})
}

// TestRestartWritesNoStatus: a dispatcher that starts and finds what it would say writes nothing, also of the tenants' usage
// that it has not counted yet. What differs is written.
func TestRestartWritesNoStatus(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		version, before string
		err             error
		wantWrites      int
	}{
		"nothing changed": {version: "v2", before: v1alpha1.ReasonStoreReady},
		"another version": {version: "v3", before: v1alpha1.ReasonStoreReady, wantWrites: 1},
		"another state":   {version: "v2", before: v1alpha1.ReasonStoreFull, wantWrites: 1},
		"first start":     {version: "v2", wantWrites: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			usage := []v1alpha1.TenantUsage{{Namespace: "clinic-a", PendingDeliveries: 3}}
			shared := &sharedStatus{status: v1alpha1.WebhookDispatcherStatus{
				Version: "v2", Store: v1alpha1.StoreReport{Reason: tt.before}, SettingsGeneration: 7, LargestTenants: usage,
			}}
			r := &StoreReporter{dispatcher: shared, name: "default", logger: logr.Discard()}
			r.ShowVersion(tt.version)
			r.ShowSettings(func() int64 { return 7 })
			r.ShowUsage(func() []v1alpha1.TenantUsage { return nil })
			for range 3 {
				r.Report(t.Context(), tt.err)
			}
			if _, writes := shared.now(); writes != tt.wantWrites {
				t.Errorf("%d writes, want %d", writes, tt.wantWrites)
			}
		})
	}
}

// TestRevisionIsReported: the revision of the table in use is written at once, by the pod whose turn it is; the others leave what
// stands, and pods that serve a manager of the version before take it back.
func TestRevisionIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shared := &sharedStatus{}
		var mu sync.Mutex
		revision, speaks := int64(0), "a"
		set := func(to int64, by string) { mu.Lock(); defer mu.Unlock(); revision, speaks = to, by }
		pod := func(name string) *StoreReporter {
			r := &StoreReporter{dispatcher: shared, name: "default", logger: logr.Discard(), wake: make(chan struct{}, 1)}
			r.ShowVersion("v2")
			r.ShowSettings(func() int64 { return 5 })
			r.ShowRevision(func() int64 {
				mu.Lock()
				defer mu.Unlock()
				if name != speaks {
					return 0
				}
				return revision
			})
			return r
		}
		ctx, cancel := context.WithCancel(t.Context())
		a, b := pod("a"), pod("b")
		var running sync.WaitGroup
		for _, r := range []*StoreReporter{a, b} {
			running.Go(func() { r.Run(ctx, func() error { return nil }) })
		}
		wantStatus := func(what string, want int64, wantWrites int) {
			t.Helper()
			synctest.Wait()
			status, writes := shared.now()
			if status.ProgrammedRevision != want || status.Store.Reason != v1alpha1.ReasonStoreReady || wantWrites >= 0 && writes != wantWrites {
				t.Errorf("%s: %+v after %d writes, want revision %d after %d", what, status, writes, want, wantWrites)
			}
		}
		wantStatus("no table yet", 0, -1)
		_, before := shared.now()
		set(7, "a")
		a.Wake()
		b.Wake()
		wantStatus("a table", 7, before+1)
		set(8, "a")
		a.Wake()
		wantStatus("another table", 8, before+2)
		c := pod("c")
		c.Report(ctx, nil)
		c.written = "" // it has something else to say
		c.Report(ctx, nil)
		wantStatus("a pod that does not speak of it", 8, before+3)
		<-time.After(10 * lookPause)
		wantStatus("what stands", 8, before+3)
		set(9, "b")
		b.Wake()
		wantStatus("another pod has its turn", 9, before+4)
		shared.mu.Lock()
		shared.status.ProgrammedRevision = 8 // by a pod that ended
		shared.mu.Unlock()
		<-time.After(lookPause + 2*storePause)
		wantStatus("what does not stand", 9, before+5)
		set(3, "b") // the table was restored from a backup
		b.Wake()
		wantStatus("an earlier table", 3, before+6)
		cancel()
		running.Wait()

		again := pod("b")
		set(3, "b")
		again.Report(t.Context(), nil)
		wantStatus("a restart", 3, before+6)
		again = pod("b")
		set(0, "b")
		again.Report(t.Context(), postgres.ErrUnreachable)
		if status, _ := shared.now(); status.ProgrammedRevision != 3 {
			t.Errorf("a pod that has no table yet left %+v", status)
		}
		again.Report(t.Context(), nil)
		wantStatus("its store is back", 3, -1)
		earlier := &StoreReporter{dispatcher: shared, name: "default", logger: logr.Discard()}
		earlier.ShowVersion("v2")
		earlier.ShowSettings(func() int64 { return 5 })
		earlier.Report(t.Context(), nil)
		wantStatus("a pod of the version before", 0, -1)
	})
}
