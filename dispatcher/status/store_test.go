package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
