package view

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/a-h/templ"
)

// The ways to write a time.
const (
	TimesRelative = "relative"
	TimesLocal    = "local"
	TimesUTC      = "utc"
)

// Prefs are a user's choices.
type Prefs struct {
	// Times is one of the Times constants; Theme is auto, light or dark.
	Times, Theme string
	// Zone is the user's time zone.
	Zone *time.Location
	Now  time.Time
}

// Assets are the paths of what pages load.
type Assets struct{ CSS, JS, HTMX string }

// Frame is what every page has around its content.
type Frame struct {
	Title string
	// Active is the section of the navigation.
	Active string
	// Where names the cluster, or the folder.
	Where string
	// Path is that of the page, for forms that come back to it.
	Path  string
	Nonce string
	// Namespace goes along in links, and may be empty.
	Namespace string
	ReadOnly  string
	Notice    string
	Problem   *Problem
	Prefs     Prefs
	Assets    Assets
}

// Problem is why something is not shown or not done.
type Problem struct {
	// Title is a sentence; Detail says what to do; Right is the missing right, as verb and resource.
	Title, Detail, Right string
}

// maxShown is how many characters of a tenant's text a page shows in one place.
const maxShown = 400

// Shown makes a tenant's text fit to be shown: characters that nobody sees, or that reverse what stands behind them, are written
// as their code point, and a text that is too long is cut.
func Shown(text string) string {
	b := strings.Builder{}
	n := 0
	for _, r := range text {
		if n++; n > maxShown {
			b.WriteRune('…')
			break
		}
		switch {
		case r == utf8.RuneError, r != '\n' && r != '\t' && !unicode.IsPrint(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Text is Shown without the bound, for YAML and formulas.
func Text(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// Link makes an address of a path's parts and a query's names and values; empty values are left out.
func Link(parts []string, query ...string) templ.SafeURL {
	b := strings.Builder{}
	for _, part := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(part))
	}
	values := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		if query[i+1] != "" {
			values.Set(query[i], query[i+1])
		}
	}
	if len(values) > 0 {
		b.WriteByte('?')
		b.WriteString(values.Encode())
	}
	return templ.SafeURL(b.String())
}

// SubscriptionLink leads to a subscription, or to a page of it.
func SubscriptionLink(namespace, name string, page ...string) templ.SafeURL {
	return Link(append([]string{"namespaces", namespace, "subscriptions", name}, page...))
}

// DeliveryLink leads to a delivery, or to an action on it.
func DeliveryLink(namespace, id string, action ...string) templ.SafeURL {
	return Link(append([]string{"namespaces", namespace, "deliveries", id}, action...))
}

// Stamp writes a time as the user wants it. The zone stands in each form but the relative one, whose switch names it.
func (p Prefs) Stamp(t time.Time) string {
	switch {
	case t.IsZero():
		return "–"
	case p.Times == TimesUTC:
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	case p.Times == TimesLocal:
		return t.In(p.zone()).Format("2006-01-02 15:04:05 MST")
	}
	return p.Relative(t)
}

// Full is a time in full, in both zones.
func (p Prefs) Full(t time.Time) string {
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC") + " · " + t.In(p.zone()).Format("2006-01-02 15:04:05 MST")
}

func (p Prefs) zone() *time.Location {
	if p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

// ZoneName is the name of the user's zone.
func (p Prefs) ZoneName() string {
	name, _ := p.Now.In(p.zone()).Zone()
	return name
}

// Relative writes how long ago a time was, or when it will be.
func (p Prefs) Relative(t time.Time) string {
	d := p.Now.Sub(t)
	if d < 0 {
		return "in " + Span(-d)
	}
	if d < time.Second {
		return "just now"
	}
	return Span(d) + " ago"
}

// Span writes a duration by its largest unit.
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}

// Count writes a number in groups of three digits.
func Count(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}
