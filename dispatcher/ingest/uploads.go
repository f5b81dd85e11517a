package ingest

import (
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	shares "github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/listener"
)

// UploadLimits bound the bodies that are received at the same time.
type UploadLimits struct {
	// Places is how many there are at most, of all tenants; a tenant, and a client address, may have as many as are
	// free. 0 means 1,024.
	Places int
	// Rate is the least rate, in bytes a second, at which a body has to come; 0 means 8 KiB/s.
	Rate int
	// Grace is for how long a body may come at less than that, or stall; 0 means 5 s.
	Grace time.Duration
}

// The defaults of UploadLimits, and what is not to be set.
const (
	defaultUploadPlaces = 1024
	defaultUploadRate   = 8 << 10
	defaultUploadGrace  = 5 * time.Second
	// discardTime bounds how long the rest of a refused request is read, so that its client sees the answer.
	discardTime = 10 * time.Second
	// hurriedRate is what a body has to come at to be kept while memory is scarce, after hurriedAge.
	hurriedRate = 256 << 10
	hurriedAge  = time.Second
	// letGoInterval is how long the memory of one that was let go has to become free before the next one is.
	letGoInterval = 50 * time.Millisecond
)

func (l *UploadLimits) setDefaults() {
	if l.Places <= 0 {
		l.Places = defaultUploadPlaces
	}
	if l.Rate <= 0 {
		l.Rate = defaultUploadRate
	}
	if l.Grace <= 0 {
		l.Grace = defaultUploadGrace
	}
}

// uploads are the bodies that are being received.
type uploads struct {
	limits  UploadLimits
	scarce  func() bool    // reports whether memory is
	tenants *shares.Budget // places by namespace
	sources *shares.Budget // and by client address
	metrics *uploadMetrics

	mu    sync.Mutex
	under map[*upload]struct{}
	last  time.Time // when one was let go
}

func newUploads(limits UploadLimits, scarce func() bool, registerer prometheus.Registerer) (*uploads, error) {
	limits.setDefaults()
	u := &uploads{
		limits: limits, scarce: scarce, under: make(map[*upload]struct{}),
		tenants: shares.New(int64(limits.Places)), sources: shares.New(int64(limits.Places)),
	}
	var err error
	u.metrics, err = newUploadMetrics(registerer, u)
	return u, err
}

// upload is one of them: a body that has to come at a rate. The time between its reads does not count.
type upload struct {
	io.ReadCloser
	all            *uploads
	control        *http.ResponseController
	request        *http.Request // whose body it is until its end
	tenant, source string
	started, until time.Time
	slack          time.Duration // how long the next bytes may take
	bytes          atomic.Int64
	heard          atomic.Int64 // when the last of them came, in nanoseconds since started
	letGo          atomic.Bool
	slow           bool // it came too slowly
}

// errLetGo is what reading a body returns that was let go for want of memory.
var errLetGo = errors.New("the upload was let go because memory is scarce")

// begin takes a place for the request's body, and puts the least rate on it. Without an error, end gives the place back.
func (u *uploads) begin(w http.ResponseWriter, r *http.Request, tenant string) (*upload, error) {
	source := listener.Source(r.RemoteAddr)
	if !u.tenants.Take(tenant, 1) {
		u.metrics.refused.WithLabelValues("tenant").Inc()
		return nil, tooManyUploads("for this namespace")
	}
	if !u.sources.Take(source, 1) {
		u.tenants.Give(tenant, 1)
		u.metrics.refused.WithLabelValues("address").Inc()
		return nil, tooManyUploads("from this address")
	}
	up := u.paced(w, r.Body, readTimeout)
	up.tenant, up.source, up.request = tenant, source, r
	r.Body = up
	u.mu.Lock()
	u.under[up] = struct{}{}
	u.mu.Unlock()
	u.relieve(up.started)
	return up, nil
}

func tooManyUploads(which string) error {
	return newProblem(overloaded, "more requests are being received %s at once than its share; send the request again after the time in Retry-After", which).retry(time.Second)
}

// paced returns body with the least rate on it, and a time in all.
func (u *uploads) paced(w http.ResponseWriter, body io.ReadCloser, within time.Duration) *upload {
	now := time.Now()
	return &upload{
		ReadCloser: body, all: u, control: http.NewResponseController(w), started: now, until: now.Add(within), slack: u.limits.Grace,
	}
}

// end gives the place back.
func (up *upload) end() {
	u := up.all
	u.mu.Lock()
	delete(u.under, up)
	u.mu.Unlock()
	u.tenants.Give(up.tenant, 1)
	u.sources.Give(up.source, 1)
	up.request.Body = up.ReadCloser
}

// Read reads what has come, or waits for it for as long as the rate allows. Bytes that came fast are worth no more than
// the grace later on: the rate is one over the last seconds.
func (up *upload) Read(b []byte) (int, error) {
	begun := time.Now()
	wait := min(up.slack, up.until.Sub(begun))
	if wait <= 0 || up.slow {
		return 0, up.tooSlow()
	}
	_ = up.control.SetReadDeadline(begun.Add(wait)) // not of a recorder in a test
	if up.letGo.Load() {                            // behind the deadline, which letting go has to move as well
		return 0, errLetGo
	}
	n, err := up.ReadCloser.Read(b)
	up.bytes.Add(int64(n))
	now := time.Now()
	up.heard.Store(int64(now.Sub(up.started)))
	worth := time.Duration(n) * time.Second / time.Duration(up.all.limits.Rate)
	up.slack = min(up.slack-now.Sub(begun)+worth, up.all.limits.Grace)
	switch {
	case err == nil:
		up.all.relieve(now)
	case errors.Is(err, io.EOF):
		_ = up.control.SetReadDeadline(time.Time{}) // net/http reads on, to see whether the client leaves
	case up.letGo.Load():
		err = errLetGo
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = up.tooSlow()
	}
	return n, err
}

// tooSlow ends an upload, once.
func (up *upload) tooSlow() error {
	if !up.slow {
		up.slow = true
		up.all.metrics.letGo.WithLabelValues("slow").Inc()
	}
	return os.ErrDeadlineExceeded
}

// relieve lets the slowest upload go if memory is scarce.
func (u *uploads) relieve(now time.Time) {
	if !u.scarce() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.last) < letGoInterval {
		return
	}
	var slowest *upload
	least := float64(hurriedRate)
	for up := range u.under {
		if rate := up.rate(now); rate < least && !up.letGo.Load() {
			slowest, least = up, rate
		}
	}
	if slowest == nil {
		return
	}
	u.last = now
	slowest.letGo.Store(true)
	_ = slowest.control.SetReadDeadline(now.Add(-time.Second)) // wakes its reader; under mu, so before the upload ends
	u.metrics.letGo.WithLabelValues("memory").Inc()
}

// rate is at how many bytes a second an upload comes. It is less than 0 for one that is silent, the less the longer, and
// infinite for one that has just begun.
func (up *upload) rate(now time.Time) float64 {
	age := now.Sub(up.started)
	silent := age - time.Duration(up.heard.Load())
	switch {
	case age < hurriedAge:
		return math.Inf(1)
	case silent >= hurriedAge:
		return -silent.Seconds()
	}
	return float64(up.bytes.Load()) / age.Seconds()
}

// underWay is how many there are.
func (u *uploads) underWay() float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return float64(len(u.under))
}

// uploadMetrics are what is counted of uploads.
type uploadMetrics struct{ refused, letGo *prometheus.CounterVec }

func newUploadMetrics(registerer prometheus.Registerer, u *uploads) (*uploadMetrics, error) {
	m := &uploadMetrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_ingest_uploads_refused_total",
			Help: "Requests refused because a tenant or an address had its share of uploads under way.",
		}, []string{"reason"}),
		letGo: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_ingest_uploads_let_go_total",
			Help: "Uploads ended before they were whole: slow ones, and the slowest while memory was scarce.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"tenant", "address"} {
		m.refused.WithLabelValues(reason)
	}
	for _, reason := range []string{"slow", "memory"} {
		m.letGo.WithLabelValues(reason)
	}
	if registerer == nil {
		return m, nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventflow_ingest_uploads", Help: "Request bodies that are being received.",
	}, u.underWay)
	return m, errors.Join(registerer.Register(m.refused), registerer.Register(m.letGo), registerer.Register(gauge))
}
