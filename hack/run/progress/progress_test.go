package progress

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStepSaysHowLong while it lasts, and nothing afterwards.
func TestStepSaysHowLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &strings.Builder{}
		s, failed := &Screen{Out: out}, errors.New("failed")
		err := s.Step(t.Context(), "build", func(context.Context) error {
			<-time.After(2*tick + time.Second)
			return failed
		})
		<-time.After(2 * tick)
		if !errors.Is(err, failed) || err.Error() != "build: failed" {
			t.Errorf("got %v", err)
		}
		if want := "• build\n  … for 15 s now\n  … for 30 s now\n"; out.String() != want {
			t.Errorf("it shows %q, want %q", out, want)
		}
	})
}
