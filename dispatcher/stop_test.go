package dispatcher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAFailureBeginsTheStop: a part that fails ends the wait for parts that hang, and is what Run tells.
func TestAFailureBeginsTheStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{failed: make(chan error, 1)}
		ctx, stop := context.WithCancel(t.Context())
		d.stop = stop
		hangs, failure := make(chan struct{}), errors.New("the database is gone")
		defer close(hangs)
		began := time.Now()
		go func() {
			<-time.After(time.Minute)
			d.report(nil) // a part that ends as it should stops nothing
			<-time.After(time.Minute)
			d.report(failure)
			d.report(errors.New("a second one"))
		}()
		ended, err := within(ctx, time.Second, func() error {
			<-hangs
			return nil
		})
		if took := time.Since(began); ended || err != nil || took != 2*time.Minute+time.Second {
			t.Errorf("within returned %t, %v after %v", ended, err, took)
		}
		if err := d.failure(); !errors.Is(err, failure) {
			t.Errorf("the failure is %v, want %v", err, failure)
		}
	})
}
