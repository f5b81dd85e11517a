package dispatcher

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serveOps answers /healthz while the process can answer at all, /readyz once store, routing table and listener are up
// and until it stops, and /metrics.
func (d *dispatcher) serveOps(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		answer(w, http.StatusOK, "ok")
	case "/readyz":
		if !d.ready.Load() {
			answer(w, http.StatusServiceUnavailable, "not ready: starting or stopping")
			return
		}
		answer(w, http.StatusOK, "ok")
	case "/metrics":
		promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}
