package apiserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestAnswersAreCharged: reading takes no more memory than is a tenant's share, and a watch keeps none.
func TestAnswersAreCharged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publish(t, "clinic-a", "evt-1")
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, versionPath+"/namespaces/clinic-a/"+path, http.NoBody)
		r.Header.Set("X-Remote-User", "a")
		f.Config.Handler.ServeHTTP(w, r)
		return w
	}
	const list, small, watch, payload = "webhookdeliveries?limit=1000", "webhookdeliveries?limit=10", "webhookdeliveries?watch=true&timeoutSeconds=1", "webhookevents/evt-1/payload"
	for _, path := range []string{list, small, payload} {
		if w := ask(path); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	f.memory.Take("uid-clinic-a", 1<<20) // by what the namespace publishes
	for path, want := range map[string]int{
		list: http.StatusTooManyRequests, small: http.StatusOK, payload: http.StatusOK,
	} {
		w := ask(path)
		if w.Code != want || want != http.StatusOK && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
	f.memory.Take("uid-clinic-a", 1<<19)
	for _, path := range []string{watch, payload} {
		if w := ask(path); w.Code != http.StatusTooManyRequests {
			t.Errorf("%s: %d, want %d", path, w.Code, http.StatusTooManyRequests)
		}
	}
	f.memory.Give("uid-clinic-a", 1<<20+1<<19)
	f.watchHoldsNothing(t, versionPath+"/namespaces/clinic-a/"+watch)
}

// flushed is a writer whose first bookmark or change tells that a watch has begun.
type flushed struct {
	*httptest.ResponseRecorder
	flushes chan struct{}
}

func (f *flushed) Flush() {
	select {
	case f.flushes <- struct{}{}:
	default:
	}
}

func (f *fixture) watchHoldsNothing(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w, done := &flushed{httptest.NewRecorder(), make(chan struct{}, 8)}, make(chan struct{})
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path+"000", http.NoBody)
	r.Header.Set("X-Remote-User", "a")
	go func() {
		defer close(done)
		f.Config.Handler.ServeHTTP(w, r)
	}()
	<-w.flushes // the header
	<-w.flushes // the deliveries that are there
	f.publish(t, "clinic-a", "evt-2")
	<-w.flushes // a change
	if used := f.memory.Used(); used != 0 {
		t.Errorf("a watch under way holds %d bytes", used)
	}
	cancel()
	<-done
}
