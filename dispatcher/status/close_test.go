package status

import (
	"testing"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
)

// TestAWriterThatNeverRan leaves nothing behind: a dispatcher may be stopped while it opens its store.
func TestAWriterThatNeverRan(t *testing.T) {
	before := goleak.IgnoreCurrent()
	New(nil, nil, func(event.SubscriptionKey) bool { return true }, logr.Discard()).Close()
	goleak.VerifyNone(t, before)
}
