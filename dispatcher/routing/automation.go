package routing

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/spelling"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// Schedule is spec.schedule as it is written down. Its texts are expressions, "" where a field is not set.
type Schedule struct {
	At     string      `json:"at"`
	IfPast plan.IfPast `json:"ifPast"`
	Key    string      `json:"key,omitempty"`
	Window *Window     `json:"window,omitempty"`
	// CancelOn are tried in their order.
	CancelOn []CancelRule `json:"cancelOn,omitempty"`
	Recheck  string       `json:"recheck,omitempty"`
}

// Window is a plan.Window as it is written down.
type Window struct {
	// Zone is the name of a time zone, or an expression that results in one.
	Zone    string       `json:"zone"`
	From    plan.Clock   `json:"from"`
	Until   plan.Clock   `json:"until"`
	Days    plan.Days    `json:"days,omitzero"`
	Outside plan.Outside `json:"outside"`
}

// CancelRule is an item of spec.schedule.cancelOn.
type CancelRule struct {
	Patterns []event.Pattern `json:"patterns"`
	Filter   string          `json:"filter,omitempty"`
	Key      string          `json:"key,omitempty"`
}

// Transform is spec.transform as it is written down.
type Transform struct {
	ContentType string            `json:"contentType"`
	Method      string            `json:"method"`
	Body        string            `json:"body,omitempty"`
	URLSuffix   string            `json:"urlSuffix,omitempty"`
	Headers     []TransformHeader `json:"headers,omitempty"`
}

// TransformHeader is a header whose value an expression makes. Its name is canonical.
type TransformHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Outcome is spec.outcome as it is written down.
type Outcome struct {
	Success string `json:"success,omitempty"`
	GiveUp  string `json:"giveUp,omitempty"`
}

// Auth is spec.auth with its Secrets resolved: a header, or OAuth2. It is never logged.
type Auth struct {
	// Header is the canonical name of the header that authenticates, and Value all of it.
	Header string `json:"header,omitempty"`
	Value  string `json:"value,omitempty"`
	// OAuth2 fetches the token of the header Authorization.
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
}

// OAuth2 is how an access token is fetched (RFC 6749, section 4.4).
type OAuth2 struct {
	TokenURL     string   `json:"tokenURL"`
	ClientID     string   `json:"clientID"`
	ClientSecret string   `json:"clientSecret"`
	Scopes       []string `json:"scopes,omitempty"`
	Audience     string   `json:"audience,omitempty"`
	// InBody puts the client's id and secret into the body of the request, in place of the header.
	InBody bool `json:"inBody,omitzero"`
}

// compileSchedule takes up the schedule, whose expressions are compiled already.
func (c *compiler) compileSchedule() error {
	s := c.spec.Schedule
	if s == nil {
		return nil
	}
	schedule := &Schedule{At: s.At, IfPast: plan.IfPast(s.IfPast), Key: s.Key, Recheck: s.Recheck}
	for i, rule := range s.CancelOn {
		patterns, err := c.patterns(fmt.Sprintf("spec.schedule.cancelOn[%d].events", i), rule.Events)
		if err != nil {
			return err
		}
		schedule.CancelOn = append(schedule.CancelOn, CancelRule{Patterns: patterns, Filter: rule.Filter, Key: rule.Key})
	}
	if s.Window != nil {
		window, err := compileWindow(s.Window)
		if err != nil {
			return reject(v1alpha1.ReasonInvalidSchedule, "spec.schedule.window%v", err)
		}
		schedule.Window = window
	}
	c.entry.Schedule = schedule
	return nil
}

// weekdays are the days by the names of the schema.
var weekdays = func() map[v1alpha1.Day]time.Weekday {
	days := make(map[v1alpha1.Day]time.Weekday)
	for day := time.Sunday; day <= time.Saturday; day++ {
		days[v1alpha1.Day(day.String())] = day
	}
	return days
}()

// compileWindow reads a window. An error begins with the field within the window, or with a colon.
func compileWindow(w *v1alpha1.Window) (*Window, error) {
	from, err := plan.ParseClock(w.From)
	if err != nil {
		return nil, fmt.Errorf(".from: %w", err)
	}
	until, err := plan.ParseClock(w.Until)
	if err != nil {
		return nil, fmt.Errorf(".until: %w", err)
	}
	var days []time.Weekday
	for i, name := range w.Days {
		day, known := weekdays[name]
		if !known {
			return nil, fmt.Errorf(".days[%d]: want a day of the week, such as Monday", i)
		}
		days = append(days, day)
	}
	window := &Window{Zone: w.TimeZone, From: from, Until: until, Days: plan.NewDays(days...), Outside: plan.Outside(w.Outside)}
	if err := window.in(time.UTC).Check(); err != nil {
		return nil, fmt.Errorf(": %w", err)
	}
	return window, nil
}

// in returns the window in a time zone.
func (w *Window) in(zone *time.Location) *plan.Window {
	return &plan.Window{Zone: zone, From: w.From, Until: w.Until, Days: w.Days, Outside: w.Outside}
}

// compileRequest takes up how a request is made, and what its answer means.
func (c *compiler) compileRequest() error {
	spec, e := &c.spec, c.entry
	e.Redact = spec.Payload.Redact
	if spec.Handshake != nil {
		e.Handshake = spec.Handshake.Origin
	}
	if spec.Payload.Format != v1alpha1.FormatStandard {
		e.Format = string(spec.Payload.Format)
	}
	if spec.Lookup != nil {
		e.Lookup = spec.Lookup.URL
	}
	if t := spec.Transform; t != nil {
		e.Transform = &Transform{ContentType: string(t.ContentType), Method: string(t.Method), Body: t.Body, URLSuffix: t.URLSuffix}
		for _, header := range t.Headers {
			e.Transform.Headers = append(e.Transform.Headers, TransformHeader{shared(http.CanonicalHeaderKey(header.Name)), header.Value})
		}
	}
	if o := spec.Outcome; o != nil {
		e.Outcome = &Outcome{Success: o.Success, GiveUp: o.GiveUp}
	}
	return nil
}

// The keys of the Secrets that spec.auth names as a whole.
const (
	usernameKey     = "username"
	passwordKey     = "password"
	clientIDKey     = "clientID"
	clientSecretKey = "clientSecret"
)

// compileAuth resolves the Secrets of spec.auth and of spec.lookup.auth.
func (c *compiler) compileAuth() (err error) {
	if c.entry.Auth, err = c.auth("spec.auth", c.spec.Auth); err != nil || c.spec.Lookup == nil {
		return err
	}
	c.entry.LookupAuth, err = c.auth("spec.lookup.auth", c.spec.Lookup.Auth)
	return err
}

// auth resolves the Secrets of the field where.
func (c *compiler) auth(where string, auth *v1alpha1.Auth) (_ *Auth, err error) {
	if auth == nil {
		return nil, nil
	}
	resolved := &Auth{Header: "Authorization"}
	switch {
	case auth.Basic != nil:
		resolved.Value, err = c.basic(where+".basic.secretRef", auth.Basic)
	case auth.Bearer != nil:
		resolved.Value, err = c.credential(where+".bearer.secretKeyRef", auth.Bearer.SecretKeyRef)
		resolved.Value = "Bearer " + resolved.Value
	case auth.APIKey != nil:
		resolved.Header = shared(http.CanonicalHeaderKey(auth.APIKey.Header))
		resolved.Value, err = c.credential(where+".apiKey.secretKeyRef", auth.APIKey.SecretKeyRef)
	default:
		resolved.Header = ""
		resolved.OAuth2, err = c.oauth2(where+".oauth2ClientCredentials", auth.OAuth2ClientCredentials)
	}
	if err != nil {
		return nil, err
	}
	resolved.Value = shared(resolved.Value)
	return resolved, nil
}

// basic is the header of a user name and a password (RFC 7617).
func (c *compiler) basic(where string, auth *v1alpha1.BasicAuth) (string, error) {
	user, err := c.credential(where, v1alpha1.SecretKeyReference{Name: auth.SecretRef.Name, Key: usernameKey})
	if err != nil {
		return "", err
	}
	for _, r := range user {
		if r == ':' {
			return "", reject(v1alpha1.ReasonSecretKeyInvalid, "key %q of Secret %q has a colon, which a user name cannot have: correct the Secret, or %s", usernameKey, auth.SecretRef.Name, where)
		}
	}
	password, err := c.credential(where, v1alpha1.SecretKeyReference{Name: auth.SecretRef.Name, Key: passwordKey})
	if err != nil {
		return "", err
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), nil
}

func (c *compiler) oauth2(where string, auth *v1alpha1.OAuth2ClientCredentials) (*OAuth2, error) {
	if err := checkURL(auth.TokenURL, where+".tokenURL", false, c.policy.AllowHTTP); err != nil {
		return nil, reject(v1alpha1.ReasonInvalidAuth, "%v", err)
	}
	result := &OAuth2{
		TokenURL: auth.TokenURL, Scopes: auth.Scopes, Audience: auth.Audience,
		InBody: auth.CredentialsIn == v1alpha1.CredentialsInBody,
	}
	for _, part := range []struct {
		key  string
		into *string
	}{{clientIDKey, &result.ClientID}, {clientSecretKey, &result.ClientSecret}} {
		text, err := c.credential(where+".secretRef", v1alpha1.SecretKeyReference{Name: auth.SecretRef.Name, Key: part.key})
		if err != nil {
			return nil, err
		}
		*part.into = shared(text)
	}
	return result, nil
}

// credential returns what a Secret holds, if it can be a credential. No error shows it.
func (c *compiler) credential(where string, ref v1alpha1.SecretKeyReference) (string, error) {
	value, err := c.resolve(where, ref)
	if err != nil {
		return "", err
	}
	text := string(value)
	wrong := ""
	switch odd := spelling.Odd(value); {
	case text == "":
		wrong = "is empty"
	case len(text) > maxSecretHeaderValue:
		wrong = fmt.Sprintf("has more than %d bytes", maxSecretHeaderValue)
	case odd != "":
		wrong = "has " + odd
	case checkHeaderValue(text, where, ref.Key) != nil:
		wrong = "is not UTF-8"
	}
	if wrong != "" {
		return "", reject(v1alpha1.ReasonSecretKeyInvalid, "key %q of Secret %q %s: correct the Secret, or %s", ref.Key, ref.Name, wrong, where)
	}
	return text, nil
}

// automationCost is what the automations of an entry take of a table, as Cost counts.
func (e *Entry) automationCost() int {
	cost := len(e.Lookup) + len(e.Format) + len(e.Handshake)
	for _, path := range e.Redact {
		cost += itemCost + len(path)
	}
	if s := e.Schedule; s != nil {
		cost += entryCost + len(s.At) + len(s.Key) + len(s.Recheck)
		if s.Window != nil {
			cost += entryCost + len(s.Window.Zone)
		}
		for _, rule := range s.CancelOn {
			cost += 4*itemCost + len(rule.Filter) + len(rule.Key)
			for _, pattern := range rule.Patterns {
				cost += itemCost + len(pattern)
			}
		}
	}
	if t := e.Transform; t != nil {
		cost += entryCost + len(t.ContentType) + len(t.Body) + len(t.URLSuffix)
		for _, header := range t.Headers {
			cost += 4*itemCost + len(header.Name) + len(header.Value)
		}
	}
	if o := e.Outcome; o != nil {
		cost += 4*itemCost + len(o.Success) + len(o.GiveUp)
	}
	return cost + e.Auth.cost() + e.LookupAuth.cost()
}

func (a *Auth) cost() int {
	if a == nil {
		return 0
	}
	cost := 4*itemCost + len(a.Header) + len(a.Value)
	if o := a.OAuth2; o != nil {
		cost += entryCost + len(o.TokenURL) + len(o.ClientID) + len(o.ClientSecret) + len(o.Audience)
		for _, scope := range o.Scopes {
			cost += itemCost + len(scope)
		}
	}
	return cost
}
