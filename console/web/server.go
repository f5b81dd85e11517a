package web

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/console/view"
)

// maxBody bounds a form in bytes.
const maxBody = 1 << 20

// Backend is what one request works with: the user's own clients.
type Backend struct {
	Objects    kube.Objects
	Deliveries deliveries.Source
	// User names the user in the log of what was done, without a secret.
	User string
}

// Options are what a Server works with.
type Options struct {
	Auth Auth
	// Open returns the clients of the request's user.
	Open func(r *http.Request) (*Backend, error)
	// Hosts are the names that the console answers to, with their port where Auth is local.
	Hosts []string
	// Where names the cluster, or the folder.
	Where string
	// Catalog is the resources that events can be of.
	Catalog *event.Catalog
	// Namespace is shown first where a page needs one.
	Namespace string
	Now       func() time.Time
	Logger    logr.Logger
}

// Server serves the panel.
type Server struct {
	options Options
	assets  view.Assets
	files   map[string]file
	// trying has room for maxTries, each of which takes processor time and memory.
	trying chan struct{}
}

//go:embed static
var static embed.FS

type file struct {
	content []byte
	kind    string
}

// New returns a server.
func New(o Options) (*Server, error) {
	s := &Server{options: o, files: make(map[string]file), trying: make(chan struct{}, maxTries)}
	for _, f := range []struct {
		name, kind string
		to         *string
	}{
		{"console.css", "text/css; charset=utf-8", &s.assets.CSS},
		{"console.js", "text/javascript; charset=utf-8", &s.assets.JS},
		{"vendor/htmx.min.js", "text/javascript; charset=utf-8", &s.assets.HTMX},
	} {
		content, err := static.ReadFile("static/" + f.name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		*f.to = "/static/" + hex.EncodeToString(sum[:8]) + "/" + path.Base(f.name)
		s.files[*f.to] = file{content, f.kind}
	}
	return s, nil
}

// route is a pattern of http.ServeMux and its handler.
type route struct {
	pattern string
	handle  func(*Server, *call) error
}

// routes are all of them, in one table, so that tests can put each guard to each.
var routes = []route{
	{"GET /{$}", (*Server).home},
	{"GET /subscriptions", (*Server).subscriptions},
	{"GET /subscriptions/new", (*Server).newForm},
	{"POST /subscriptions", (*Server).save},
	{"POST /subscriptions/check", (*Server).check},
	{"POST /subscriptions/yaml", (*Server).formYAML},
	{"GET /namespaces/{namespace}/subscriptions/{name}", (*Server).subscription},
	{"GET /namespaces/{namespace}/subscriptions/{name}/edit", (*Server).edit},
	{"GET /namespaces/{namespace}/subscriptions/{name}/yaml", (*Server).yaml},
	{"GET /namespaces/{namespace}/subscriptions/{name}/rotate", (*Server).rotate},
	{"POST /namespaces/{namespace}/subscriptions/{name}/rotate", (*Server).rotateStep},
	{"POST /namespaces/{namespace}/subscriptions/{name}/suspend", (*Server).suspend},
	{"POST /namespaces/{namespace}/subscriptions/{name}/resume", (*Server).resume},
	{"POST /namespaces/{namespace}/subscriptions/{name}/test", (*Server).test},
	{"GET /deliveries", (*Server).deliveries},
	{"GET /deliveries/fresh", (*Server).fresh},
	{"GET /namespaces/{namespace}/deliveries/{id}", (*Server).delivery},
	{"POST /namespaces/{namespace}/deliveries/{id}/replay", (*Server).replay},
	{"POST /namespaces/{namespace}/deliveries/{id}/cancel", (*Server).cancel},
	{"POST /namespaces/{namespace}/deliveries/{id}/sendnow", (*Server).sendNow},
	{"POST /namespaces/{namespace}/deliveries/{id}/payload", (*Server).payload},
	{"POST /namespaces/{namespace}/replay", (*Server).replayMany},
	{"GET /events", (*Server).events},
	{"GET /try", (*Server).tryForm},
	{"POST /try", (*Server).try},
	{"GET /dispatchers", (*Server).dispatchers},
	{"POST /preferences", (*Server).preferences},
}

// call is one request.
type call struct {
	*http.Request
	w http.ResponseWriter
	*Backend
}

// Handler returns what serves all of it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, request *http.Request) {
			c := &call{Request: request, w: w}
			err := request.ParseForm() // here, so that no route takes a form that was cut for an empty one
			if err == nil {
				c.Backend, err = s.options.Open(request)
			}
			if err == nil {
				err = r.handle(s, c)
			}
			if err != nil {
				s.fail(c, err)
			}
		})
	}
	mux.HandleFunc("GET /static/", s.static)
	return s.guard(mux)
}

func (s *Server) static(w http.ResponseWriter, r *http.Request) {
	f, ok := s.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable") // the path has a hash of the content
	_, _ = w.Write(f.content)
}

type nonceKey struct{}

func withNonce(ctx context.Context, nonce string) context.Context {
	return context.WithValue(ctx, nonceKey{}, nonce)
}

// show answers with a page.
func (s *Server) show(c *call, status int, page templ.Component) error {
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	c.w.WriteHeader(status)
	return page.Render(c.Context(), c.w)
}

// frame is what all pages of a request have.
func (s *Server) frame(c *call, section, title string) view.Frame {
	nonce, _ := c.Context().Value(nonceKey{}).(string)
	f := view.Frame{
		Title: title, Active: section, Where: s.options.Where, Path: c.URL.RequestURI(), Nonce: nonce, Prefs: s.prefs(c.Request),
		Assets: s.assets, Namespace: c.namespace(), Notice: notices[c.URL.Query().Get("done")],
	}
	if c.Method != http.MethodGet {
		f.Path = "/" + section
	}
	if c.Backend != nil {
		f.ReadOnly = c.Objects.ReadOnly()
	}
	return f
}

// namespace is that of the path, or of the query or form.
func (c *call) namespace() string {
	if n := c.PathValue("namespace"); n != "" {
		return n
	}
	return strings.TrimSpace(c.FormValue("namespace"))
}

// notices are what a page says after something was done; the address carries the word.
var notices = map[string]string{
	"saved":     "Saved. It is in effect once it is Ready.",
	"suspended": "Suspended. Events still match; their deliveries wait.",
	"resumed":   "Resumed.",
	"sent":      "The test event was accepted. Its delivery is below in a moment; reload to see it.",
	"unmatched": "The event was accepted, and no subscription matched it.",
	"replayed":  "It is on its way again.",
	"cancelled": "Cancelled. No attempt begins any more.",
	"sendnow":   "It is due now.",
	"rotated":   "The new key signs beside the old one. Give it to every receiver.",
	"promoted":  "The new key is the current one. The old one signs beside it.",
	"ended":     "Only the new key signs.",
}

// prefs reads the user's choices from cookies.
func (s *Server) prefs(r *http.Request) view.Prefs {
	p := view.Prefs{Times: choice(r, "eventflow-times", view.TimesRelative, view.TimesLocal, view.TimesUTC),
		Theme: choice(r, "eventflow-theme", "auto", "light", "dark"), Zone: time.Local, Now: s.options.Now()}
	if cookie, err := r.Cookie("eventflow-zone"); err == nil && len(cookie.Value) < 64 {
		if zone, err := time.LoadLocation(cookie.Value); err == nil && cookie.Value != "" {
			p.Zone = zone
		}
	}
	return p
}

// choice is the value of a cookie if it is one of the allowed; else the first of these.
func choice(r *http.Request, name string, allowed ...string) string {
	if cookie, err := r.Cookie(name); err == nil {
		for _, a := range allowed {
			if cookie.Value == a {
				return a
			}
		}
	}
	return allowed[0]
}

// problemOf says an error in words, with the status that it is answered with.
func problemOf(err error) (int, *view.Problem) {
	if u, ok := errors.AsType[*unusedSecret](err); ok {
		status, problem := problemOf(u.error)
		problem.Title = "The key was not changed"
		problem.Detail += " " + leftBehind(u.namespace, u.secret)
		return status, problem
	}
	if f, ok := errors.AsType[*kube.Forbidden](err); ok {
		return http.StatusForbidden, &view.Problem{Title: "You may not see or do this", Detail: f.Error() + ".", Right: right(f.Verb, f.Resource, f.Group, f.Namespace)}
	}
	if f, ok := errors.AsType[*deliveries.Forbidden](err); ok {
		return http.StatusForbidden, &view.Problem{Title: "You may not see or do this", Detail: f.Error() + ".", Right: right(f.Verb, f.Resource, f.Group, f.Namespace)}
	}
	if f, ok := errors.AsType[*deliveries.Refused](err); ok {
		return f.Status, &view.Problem{Title: "The dispatcher did not do it", Detail: f.Message}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, &view.Problem{Title: "The form is too large", Detail: "A form has at most 1 MiB."}
	}
	switch {
	case errors.Is(err, kube.ErrNotFound), errors.Is(err, deliveries.ErrNotFound):
		return http.StatusNotFound, &view.Problem{Title: "It is not there", Detail: "There is no such object, or it is not kept any more."}
	case errors.Is(err, deliveries.ErrUnavailable):
		return http.StatusServiceUnavailable, &view.Problem{Title: "Deliveries are not reachable from this console",
			Detail: "Start it with --dispatcher URL, for one by kubectl port-forward, or turn on the deliveries API of the cluster. Subscriptions show what their status knows."}
	case errors.Is(err, deliveries.ErrNoPayload):
		return http.StatusNotImplemented, &view.Problem{Title: "There is no payload here", Detail: "A dispatcher's HTTP API serves no payloads. The deliveries API of the cluster does, to who has the right to them."}
	case errors.Is(err, kube.ErrReadOnly):
		return http.StatusConflict, &view.Problem{Title: "Nothing was changed", Detail: err.Error()}
	}
	return http.StatusBadGateway, &view.Problem{Title: "Something is not reachable", Detail: err.Error()}
}

func right(verb, resource, group, namespace string) string {
	text := verb + " " + resource
	if group != "" {
		text += "." + group
	}
	if namespace != "" {
		text += " in " + namespace
	}
	return text
}

// fail answers with a page that says the error.
func (s *Server) fail(c *call, err error) {
	status, problem := problemOf(err)
	f := s.frame(c, view.SectionSubscriptions, problem.Title)
	f.Problem = problem
	_ = s.show(c, status, view.Failure(&f)) // a client that left needs no answer
}

// done leads back to a page that says what was done.
func (c *call) done(page templ.SafeURL, word string) error {
	http.Redirect(c.w, c.Request, string(page)+"?done="+word, http.StatusSeeOther)
	return nil
}
