package pebble_test

import (
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// TestConformanceSealed: the same promises with encryption on.
func TestConformanceSealed(t *testing.T) {
	storetest.Unraced(t)
	t.Parallel()
	storetest.Run(t, storetest.Sealed(memory))
}
