package payload

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// Format is the envelope of a delivery.
type Format int

// The formats. Standard is Event Flow's own envelope; the others are those of CloudEvents 1.0, in one document and in
// headers.
const (
	Standard Format = iota
	CloudEvents
	CloudEventsBinary
)

// Expression is a text and what it was compiled to. A nil Program with a text is one that this version cannot compile:
// each evaluation of it fails.
type Expression struct {
	Text    string
	Program *expression.Program
}

func (e Expression) set() bool { return e.Text != "" || e.Program != nil }

// Header is a header that an expression makes.
type Header struct {
	Name  string
	Value Expression
}

// Spec is what a Recipe is made from. Its fields follow those of a subscription's spec.
type Spec struct {
	Subscription *expression.Subscription
	// Namespace and Name are the subscription's; Namespace is the source of its CloudEvents.
	Namespace string

	Recheck Expression
	// SkipErrors is set if a recheck that fails cancels the delivery (spec.filterErrors: Skip).
	SkipErrors bool
	LookupURL  Expression
	// Lookup has the authorization of the lookup, and what else holds of its request, where that is not the target's.
	Lookup *egress.Target

	Thin   bool
	Redact []string
	Format Format

	Body        Expression
	ContentType string // of Body; application/json if empty
	Method      string // POST if empty
	URLSuffix   Expression
	Headers     []Header

	Success, GiveUp Expression
}

// Recipe is how the request of an attempt is made, and its answer read. A nil Recipe sends the event as it is stored. It
// is immutable, and safe for concurrent use.
type Recipe struct {
	spec     Spec
	redact   *node  // nil if nothing is redacted
	origin   string // of the lookup's URL, where its expression begins with one; empty otherwise
	wantBody bool   // an expression of the outcome may read the answer's body
}

// NewRecipe returns the recipe of a subscription; nil if there is nothing to be done. Its error names a path of Redact
// that is none.
func NewRecipe(spec Spec) (*Recipe, error) {
	plain := !spec.Recheck.set() && !spec.LookupURL.set() && !spec.Thin && len(spec.Redact) == 0 && spec.Format == Standard &&
		!spec.Body.set() && (spec.Method == "" || spec.Method == http.MethodPost) && !spec.URLSuffix.set() && len(spec.Headers) == 0 &&
		!spec.Success.set() && !spec.GiveUp.set()
	if plain {
		return nil, nil
	}
	paths, err := parsePaths(spec.Redact)
	if err != nil {
		return nil, fmt.Errorf("make a recipe: %w", err)
	}
	return &Recipe{
		spec: spec, redact: paths, origin: literalOrigin(spec.LookupURL.Text),
		wantBody: strings.Contains(spec.Success.Text+spec.GiveUp.Text, "body") || spec.Success.Text+spec.GiveUp.Text == "",
	}, nil
}

// Evaluates reports whether the recipe has an expression, or redacts: what may fail with an event.
func (r *Recipe) Evaluates() bool {
	if r == nil {
		return false
	}
	s := &r.spec
	return r.redact != nil || s.Recheck.set() || s.LookupURL.set() || s.Body.set() || s.URLSuffix.set() || len(s.Headers) > 0 ||
		s.Success.set() || s.GiveUp.set()
}

// literalOrigin is the scheme and host of the URL that an expression begins with as a literal, such as
// 'https://example.com/patients/' + event.data.id; empty if data may decide on them.
func literalOrigin(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return ""
	}
	literal, rest, ended := strings.Cut(text[1:], text[:1])
	if !ended || strings.ContainsAny(literal, "\\\r\n") {
		return ""
	}
	scheme, after, found := strings.Cut(literal, "://")
	host, _, slash := strings.Cut(after, "/")
	if !found || host == "" || !slash && strings.TrimSpace(rest) != "" || strings.ContainsAny(host, "?#@") {
		return ""
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '+' {
		return "" // a conditional, or a function of the literal
	}
	if !isPlainConcatenation(rest) {
		return ""
	}
	return strings.ToLower(scheme + "://" + host)
}

// isPlainConcatenation reports whether no operator binds less than + in the rest of an expression: then its literal
// beginning is the beginning of its result.
func isPlainConcatenation(rest string) bool {
	var quote rune
	for _, c := range rest {
		switch {
		case quote != 0 && c == '\\':
			return false
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '?':
			return false
		}
	}
	return quote == 0
}

// originOf is a URL's scheme and host; empty if it has none.
func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}
