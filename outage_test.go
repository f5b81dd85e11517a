package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

const (
	// firstRefusal is within what a publish is answered that was under way when the database went.
	firstRefusal = 8 * time.Second
	// nextRefusal is the same once the dispatchers know: they do not ask the database.
	nextRefusal = 2 * time.Second
	// recovery is how long after the database's return every subscription gets its events again.
	recovery = 15 * time.Second
)

// TestDatabaseAway takes the database away under load: publishes are refused, and everything goes on by itself.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end  func(*postgrestest.Server) error
		away time.Duration
	}{
		"stopped for a minute":  {(*postgrestest.Server).Shutdown, time.Minute},
		"killed, and restarted": {(*postgrestest.Server).Kill, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3)
			f.endpoint.answers(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/lab") { // what is to be attempted again goes through the outage, too
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			load := f.traffic(8)
			load.flows(300)
			if err := tc.end(f.database); err != nil {
				t.Fatal(err)
			}
			gone := time.Now()
			load.sitOut(gone, tc.away)
			back := time.Now()
			if err := f.database.Start(); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			f.endpoint.answers(func(http.ResponseWriter, *http.Request) {})
			load.goesOn()
			eventually(t, "every shard has an owner", func() bool { return owned(f.all()...) == 64 })
			took := time.Since(started)
			t.Logf("away for %s; every subscription gets its events again after %s", started.Sub(gone).Round(time.Second), took)
			if took > recovery {
				t.Errorf("every subscription got its events again only after %s", took)
			}
			load.audit()
			load.checkRefusals(gone, back)
			for _, p := range f.all() {
				if p.gauge("eventflow_store_ready") != 1 {
					t.Error("a dispatcher does not say that its store is ready again")
				}
			}
		})
	}
}

// sitOut looks at the dispatchers while the database is unavailable: they live and answer, and say what is the matter.
func (t *traffic) sitOut(gone time.Time, away time.Duration) {
	t.Helper()
	before := len(t.refusals())
	eventually(t.T, "publishes are refused", func() bool { return len(t.refusals()) > before+50 })
	eventually(t.T, "each dispatcher says that its store is not ready", func() bool {
		return !slices.ContainsFunc(t.all(), func(p *plane) bool { return p.gauge("eventflow_store_ready") != 0 })
	})
	if away > leases {
		eventually(t.T, "nobody works on any shard", func() bool { return owned(t.all()...) == 0 })
		t.startInVain()
	}
	<-time.After(time.Until(gone.Add(away)))
	for _, p := range t.all() {
		select {
		case <-p.ended:
			t.Fatalf("a dispatcher ended: %v\n%s", p.err, &p.log)
		default:
		}
		// A dispatcher that was not ready would get no publishes to answer with 503 and Retry-After.
		if alive, ready := p.probe("/healthz"), p.probe("/readyz"); alive != http.StatusOK || ready != http.StatusOK {
			t.Errorf("/healthz says %d, /readyz %d", alive, ready)
		}
		if p.gauge("eventflow_store_ready") != 0 {
			t.Error("a dispatcher says that its store is ready, while there is none")
		}
	}
}

// startInVain starts a dispatcher that finds no database: it never says that it is ready, and ends.
func (f *fleet) startInVain() {
	f.Helper()
	p := &plane{t: f.T, dir: f.dir, store: f.database.URL("postgres")}
	ready := p.launch()
	select {
	case <-ready:
		f.Error("a dispatcher without a database says that it is ready")
	case <-p.ended:
		if p.err == nil || !strings.Contains(p.log.String(), "the database cannot be reached") {
			f.Errorf("a dispatcher without a database ended with %v:\n%s", p.err, &p.log)
		}
	case <-time.After(patience):
		f.Error("a dispatcher without a database did not end")
	}
}

// checkRefusals expects no publish to be acknowledged between gone and back, and each to be answered in time.
func (t *traffic) checkRefusals(gone, back time.Time) {
	t.Helper()
	for _, a := range t.acks(0) {
		if a.sent.After(gone) && a.at.Before(back) {
			t.Errorf("%s was acknowledged, while there was no database", a.id)
		}
	}
	var slowest, later time.Duration
	for _, r := range t.refusals() {
		slowest = max(slowest, r.took)
		if r.sent.After(gone.Add(firstRefusal)) && r.sent.Before(back) {
			later = max(later, r.took)
		}
	}
	t.Logf("publishes were refused within %s, within %s once it was known", slowest, later)
	if slowest > firstRefusal || later > nextRefusal {
		t.Errorf("publishes were refused within %s, and within %s once it was known; want %s, %s", slowest, later, firstRefusal, nextRefusal)
	}
	if n := t.failed.Load(); n > 0 {
		t.Errorf("%d publishes had no answer", n)
	}
}
