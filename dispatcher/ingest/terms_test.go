package ingest

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// TestTermsTakeEffectWhileRunning changes the bound of an event, and the event types, between publishes.
func TestTermsTakeEffectWhileRunning(t *testing.T) {
	t.Parallel()
	type terms struct {
		catalog *event.Catalog
		bytes   int
	}
	var now atomic.Pointer[terms]
	set := func(bytes int, resources ...string) {
		catalog, err := event.NewCatalog(resources...)
		if err != nil {
			t.Fatal(err)
		}
		now.Store(&terms{catalog, bytes})
	}
	f := newFixture(t, func(o *Options) {
		o.Terms = func() (*event.Catalog, int) { return now.Load().catalog, now.Load().bytes }
	})
	large := `{"type":"patient.created","data":{"x":"` + strings.Repeat("x", 3000) + `"}}`
	own := `{"type":"lab-order.created","data":{}}`
	for _, step := range []struct {
		name                string
		bytes               int
		resources           []string
		wantLarge, wantOwns int
	}{
		{"at first", 2048, nil, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
		{"larger", 4096, nil, http.StatusAccepted, http.StatusUnprocessableEntity},
		{"one more resource", 4096, []string{"lab-order"}, http.StatusAccepted, http.StatusAccepted},
		{"as at first", 2048, nil, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	} {
		set(step.bytes, step.resources...)
		for body, want := range map[string]int{large: step.wantLarge, own: step.wantOwns} {
			if got := f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", body, "Content-Type: application/json"); got.Code != want {
				t.Errorf("%s: %d %s, want %d", step.name, got.Code, got.Body, want)
			}
		}
	}
}

// TestGraceTakesEffectWhileRunning shortens and lengthens the outage grace during an outage.
func TestGraceTakesEffectWhileRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var grace atomic.Int64
		grace.Store(int64(MaxOutageGrace))
		server := newAPIServer(publishA)
		k := newKubernetes(t, server, func(o *KubernetesOptions) {
			o.CurrentGrace = func() time.Duration { return time.Duration(grace.Load()) }
		})
		allowed := func() bool {
			err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA)
			if errors.Is(err, ErrUnauthenticated) {
				t.Error(err)
			}
			return err == nil
		}
		if !allowed() {
			t.Fatal("not allowed before the outage")
		}
		server.set(func() { server.down = errRefused })
		<-time.After(time.Minute)
		if !allowed() {
			t.Error("not allowed a minute into the outage, with a grace of 5 minutes")
		}
		grace.Store(int64(30 * time.Second))
		<-time.After(time.Minute)
		if allowed() {
			t.Error("allowed two minutes into the outage, with a grace of 30 seconds")
		}
	})
}
