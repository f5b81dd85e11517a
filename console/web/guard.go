package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Auth decides if a request may be served.
type Auth interface {
	// Allowed reports whether the request comes from a user.
	Allowed(r *http.Request) bool
	// Local reports whether only this machine's user is served, so that no other site may even link here.
	Local() bool
}

// Launch lets in who opened the address that the console printed. It is for one user on one machine.
type Launch struct {
	token, session string
	cookie         string
}

var _ Auth = (*Launch)(nil)

// NewLaunch returns a Launch with fresh tokens. The cookie is named by port, because cookies are shared by all ports of a host.
func NewLaunch(port string) *Launch {
	return &Launch{token: rand.Text(), session: rand.Text(), cookie: "eventflow-console-" + port}
}

// Path is the address that lets in, behind scheme and host.
func (l *Launch) Path() string { return "/launch?token=" + l.token }

// Local returns true.
func (*Launch) Local() bool { return true }

// Allowed compares the cookie in constant time.
func (l *Launch) Allowed(r *http.Request) bool {
	cookie, err := r.Cookie(l.cookie)
	return err == nil && same(cookie.Value, l.session)
}

// launch exchanges the token for the cookie.
func (l *Launch) launch(w http.ResponseWriter, r *http.Request) {
	if !same(r.URL.Query().Get("token"), l.token) {
		refuse(w, http.StatusUnauthorized, "open the address that \"eventflow console\" printed: this one has no valid token")
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // without Secure: it is for plain HTTP on loopback
		Name: l.cookie, Value: l.session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	http.Redirect(w, r, "/subscriptions", http.StatusSeeOther)
}

// same compares two secrets in constant time, whatever their lengths.
func same(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Bearer lets in requests with a bearer token. Whether it is a good one, the API server says.
type Bearer struct{}

var _ Auth = Bearer{}

// Local returns false.
func (Bearer) Local() bool { return false }

// Allowed reports whether there is a token.
func (Bearer) Allowed(r *http.Request) bool { return Token(r) != "" }

// Token is the bearer token of a request, or empty (RFC 6750, section 2.1).
func Token(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// policy is the Content-Security-Policy with the nonce of one answer.
func policy(nonce string) string {
	return "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'self'; connect-src 'self'; img-src data:; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

// setHeaders sets what every answer has.
func setHeaders(w http.ResponseWriter, nonce string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy(nonce))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// guard refuses, before any route, what no user of this console sends.
func (s *Server) guard(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce := rand.Text()
		setHeaders(w, nonce)
		switch {
		case !s.knownHost(r.Host):
			refuse(w, http.StatusMisdirectedRequest, "this console does not answer to this host name; see --host")
			return
		case protection.Check(r) != nil || !s.sameSite(r):
			refuse(w, http.StatusForbidden, "another site sent this request")
			return
		}
		r = r.WithContext(withNonce(r.Context(), nonce))
		if launch, ok := s.options.Auth.(*Launch); ok && r.URL.Path == "/launch" && r.Method == http.MethodGet {
			launch.launch(w, r)
			return
		}
		if !s.options.Auth.Allowed(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "sign in first: open the address that \"eventflow console\" printed, or come through the platform's login")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether the console answers under a host name, its port included.
func (s *Server) knownHost(host string) bool {
	if slices.Contains(s.options.Hosts, host) {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	return err == nil && !s.options.Auth.Local() && slices.Contains(s.options.Hosts, name)
}

// sameSite reports whether a request can be the user's own. Links from other sites lead to a console behind a login, and to no
// local one; neither answers other reads.
func (s *Server) sameSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return !s.options.Auth.Local() && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func refuse(w http.ResponseWriter, status int, message string) {
	http.Error(w, message, status)
}
