package status

import (
	"errors"
	"fmt"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

func TestStoreReady(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err        error
		wantReason string
	}{
		"ready":        {nil, "StoreReady"},
		"full":         {fmt.Errorf("append: %w", store.ErrFull), "StoreFull"},
		"read only":    {fmt.Errorf("append: %w", store.ErrReadOnly), "StoreReadOnly"},
		"old":          {fmt.Errorf("open: %w", postgres.ErrTooOld), "DatabaseTooOld"},
		"newer":        {fmt.Errorf("open: %w", postgres.ErrNewerSchema), "SchemaNewer"},
		"not migrated": {fmt.Errorf("open: %w", postgres.ErrNotMigrated), "SchemaNotMigrated"},
		"unreachable":  {fmt.Errorf("open: %w", postgres.ErrUnreachable), "DatabaseUnreachable"},
		"anything":     {errors.New("password=secret"), "DatabaseUnreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := storeReady(test.err)
			if got.Reason != test.wantReason || (got.Status == "True") != (test.err == nil) || got.Message == "" {
				t.Errorf("got %+v, want %s", got, test.wantReason)
			}
		})
	}
}
