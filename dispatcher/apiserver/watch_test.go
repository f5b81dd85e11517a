package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlines is a writer that notes until when it may write.
type deadlines struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.last = t
	return nil
}

// TestTheEndOfAWatchIsWritten: a watch whose last change is long ago has time to end its body, so that clients see no error.
func TestTheEndOfAWatchIsWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, versionPath+"/namespaces/clinic-a/webhookdeliveries?watch=true&timeoutSeconds=1", http.NoBody)
	r.Header.Set("X-Remote-User", "viewer")
	f.publish(t, "clinic-a", "evt-1")
	f.Config.Handler.ServeHTTP(w, r)
	if left := time.Until(w.last); w.Code != http.StatusOK || left < writeTimeout-time.Second/2 {
		t.Errorf("answer %d; %v are left to end the body, want %v", w.Code, left, writeTimeout)
	}
}
