package controllers_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/controllers"
)

// TestStopsWithoutCaches: a manager whose caches the API server does not fill stops at once when it is told to.
func TestStopsWithoutCaches(t *testing.T) {
	t.Parallel()
	config, asked, answer := rest.CopyConfig(managerConfig), make(chan struct{}, 100), make(chan struct{})
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if strings.Contains(request.URL.Path, "webhooksubscriptions") {
				select {
				case asked <- struct{}{}:
				default:
				}
				<-answer // whatever becomes of the request
			}
			return next.RoundTrip(request)
		})
	})
	defer close(answer)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- controllers.Run(ctx, config, controllers.Options{MetricsAddress: "0", ProbeAddress: "0", DispatcherImage: testImage})
	}()
	select {
	case <-asked:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		t.Fatal("it asks for nothing")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it did not stop within 10 s")
	}
}
