package routing

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The bounds of the automations in the schema. Expressions have theirs in package expression.
const (
	maxCancelRules      = 8
	maxCancelEvents     = 32
	maxRedactPaths      = 64
	maxRedactPath       = 256
	maxTransformHeaders = 16
	maxScopes           = 32
	maxScope            = 256
	maxAudience         = 512
)

var (
	redactRule = regexp.MustCompile(`^[^.\[\]]+(\[\*\])*([.][^.\[\]]+(\[\*\])*)*$`)
	scopeRule  = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`) // RFC 6749, section 3.3
)

func checkSchedule(spec v1alpha1.WebhookSubscriptionSpec) error {
	s := spec.Schedule
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidSchedule, "spec.schedule"+format, args...)
	}
	switch {
	case s == nil:
		return nil
	case spec.Delivery.Ordering == v1alpha1.OrderingByResource:
		return invalid(" and spec.delivery.ordering ByResource exclude each other: a schedule decides when each delivery goes")
	case s.At == "":
		return invalid(".at: name the time, such as timestamp(event.data.start) - duration('24h')")
	case s.IfPast != v1alpha1.IfPastSkip && s.IfPast != v1alpha1.IfPastDeliver:
		return invalid(".ifPast: must be Skip or Deliver")
	case len(s.CancelOn) > maxCancelRules:
		return invalid(".cancelOn: at most %d items", maxCancelRules)
	}
	for i, rule := range s.CancelOn {
		if n := len(rule.Events); n < 1 || n > maxCancelEvents {
			return invalid(".cancelOn[%d].events: name 1 to %d patterns, such as \"appointment.deleted\"", i, maxCancelEvents)
		}
		for j, text := range rule.Events {
			if slices.Contains(rule.Events[:j], text) {
				return invalid(".cancelOn[%d].events[%d]: %s is named twice", i, j, quote(text))
			}
		}
	}
	if w := s.Window; w != nil {
		return checkWindow(w)
	}
	return nil
}

func checkWindow(w *v1alpha1.Window) error {
	if w.TimeZone == "" {
		return reject(v1alpha1.ReasonInvalidSchedule, "spec.schedule.window.timeZone: name a time zone, such as America/New_York")
	}
	for i, day := range w.Days {
		if slices.Contains(w.Days[:i], day) {
			return reject(v1alpha1.ReasonInvalidSchedule, "spec.schedule.window.days[%d]: %s is named twice", i, quote(string(day)))
		}
	}
	if _, err := compileWindow(w); err != nil {
		return reject(v1alpha1.ReasonInvalidSchedule, "spec.schedule.window%v", err)
	}
	return nil
}

func checkLookup(spec v1alpha1.WebhookSubscriptionSpec) error {
	if spec.Lookup == nil {
		return nil
	}
	if spec.Lookup.URL == "" {
		return reject(v1alpha1.ReasonInvalidLookup, "spec.lookup.url: write an expression that results in an https URL")
	}
	return checkAuthAt("spec.lookup.auth", spec.Lookup.Auth, nil)
}

func checkHandshake(spec v1alpha1.WebhookSubscriptionSpec) error {
	if h := spec.Handshake; h != nil && len(validation.IsDNS1123Subdomain(h.Origin)) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.handshake.origin: want a DNS name in lower case, such as eventflow.clinic.example")
	}
	return nil
}

// checkPayload checks what spec.payload says beside the mode.
func checkPayload(spec v1alpha1.WebhookSubscriptionSpec) error {
	p := spec.Payload
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidTransform, "spec.payload."+format, args...)
	}
	if p.Format != v1alpha1.FormatStandard && p.Format != v1alpha1.FormatCloudEvents && p.Format != v1alpha1.FormatCloudEventsBinary {
		return invalid("format: must be Standard, CloudEvents or CloudEventsBinary")
	}
	if len(p.Redact) > maxRedactPaths {
		return invalid("redact: at most %d paths", maxRedactPaths)
	}
	for i, path := range p.Redact {
		switch {
		case utf8.RuneCountInString(path) > maxRedactPath || !redactRule.MatchString(path):
			return invalid("redact[%d]: want keys joined by dots, with [*] for each element of a list, such as contacts[*].phone", i)
		case slices.Contains(p.Redact[:i], path):
			return invalid("redact[%d]: %s is named twice", i, quote(path))
		}
	}
	return nil
}

func checkTransform(spec v1alpha1.WebhookSubscriptionSpec) error {
	t := spec.Transform
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidTransform, "spec.transform."+format, args...)
	}
	switch {
	case t == nil:
		return nil
	case !slices.Contains([]v1alpha1.ContentType{v1alpha1.ContentTypeJSON, v1alpha1.ContentTypeForm, v1alpha1.ContentTypeText, v1alpha1.ContentTypeFHIR}, t.ContentType):
		return invalid("contentType: must be application/json, application/x-www-form-urlencoded, text/plain or application/fhir+json")
	case t.Body == "" && t.ContentType != v1alpha1.ContentTypeJSON:
		return invalid("body: a contentType other than application/json needs a body")
	case !slices.Contains([]v1alpha1.Method{http.MethodPost, http.MethodPut, http.MethodPatch}, t.Method):
		return invalid("method: must be POST, PUT or PATCH")
	case len(t.Headers) > maxTransformHeaders:
		return invalid("headers: at most %d headers", maxTransformHeaders)
	}
	seen := make(map[string]bool, len(t.Headers))
	for i, header := range t.Headers {
		canonical := http.CanonicalHeaderKey(header.Name)
		switch {
		case len(header.Name) > maxHeaderName || !tokenRule.MatchString(header.Name):
			return invalid("headers[%d].name: want an HTTP header name of at most %d letters, digits and dashes", i, maxHeaderName)
		case reservedHeader(header.Name) || canonical == "Authorization":
			return invalid("headers[%d].name: %s is set by Event Flow, by spec.auth or by HTTP itself: remove it", i, header.Name)
		case seen[canonical]:
			return invalid("headers[%d].name: %s is named twice (case does not matter)", i, header.Name)
		case header.Value == "":
			return invalid("headers[%d].value: write an expression that results in a text", i)
		}
		seen[canonical] = true
	}
	return nil
}

// checkAuth checks the shape of spec.auth, before any of its Secrets is read.
func checkAuth(spec v1alpha1.WebhookSubscriptionSpec) error {
	return checkAuthAt("spec.auth", spec.Auth, spec.Headers)
}

// checkAuthAt checks the authentication in the field where, of requests that have the headers.
func checkAuthAt(where string, auth *v1alpha1.Auth, headers []v1alpha1.Header) error {
	if auth == nil {
		return nil
	}
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidAuth, where+format, args...)
	}
	set := 0
	for _, is := range []bool{auth.Basic != nil, auth.Bearer != nil, auth.APIKey != nil, auth.OAuth2ClientCredentials != nil} {
		if is {
			set++
		}
	}
	named := slices.ContainsFunc(headers, func(h v1alpha1.Header) bool { return strings.EqualFold(h.Name, "Authorization") })
	switch {
	case set != 1:
		return invalid(": set exactly one of basic, bearer, apiKey and oauth2ClientCredentials")
	case named && auth.APIKey == nil:
		return invalid(" and a header Authorization in spec.headers exclude each other: remove one")
	case auth.Basic != nil:
		return checkSecretName(auth.Basic.SecretRef, where+".basic.secretRef")
	case auth.Bearer != nil:
		return checkReference(where+".bearer.secretKeyRef", auth.Bearer.SecretKeyRef)
	case auth.OAuth2ClientCredentials != nil:
		return checkOAuth2(where+".oauth2ClientCredentials", auth.OAuth2ClientCredentials)
	}
	header := auth.APIKey.Header
	switch {
	case len(header) > maxHeaderName || !tokenRule.MatchString(header):
		return invalid(".apiKey.header: want an HTTP header name of at most %d letters, digits and dashes", maxHeaderName)
	case reservedHeader(header):
		return invalid(".apiKey.header: %s is set by Event Flow or by HTTP itself: name another", header)
	case slices.ContainsFunc(headers, func(h v1alpha1.Header) bool { return strings.EqualFold(h.Name, header) }):
		return invalid(".apiKey.header: %s stands in spec.headers, too: remove it there", header)
	}
	return checkReference(where+".apiKey.secretKeyRef", auth.APIKey.SecretKeyRef)
}

func checkOAuth2(where string, auth *v1alpha1.OAuth2ClientCredentials) error {
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidAuth, where+format, args...)
	}
	switch {
	case auth.TokenURL == "":
		return invalid(".tokenURL: name the absolute https URL of the token endpoint")
	case auth.CredentialsIn != v1alpha1.CredentialsInHeader && auth.CredentialsIn != v1alpha1.CredentialsInBody:
		return invalid(".credentialsIn: must be Header or Body")
	case utf8.RuneCountInString(auth.Audience) > maxAudience:
		return invalid(".audience: at most %d characters", maxAudience)
	case len(auth.Scopes) > maxScopes:
		return invalid(".scopes: at most %d", maxScopes)
	}
	for i, scope := range auth.Scopes {
		switch {
		case len(scope) > maxScope || !scopeRule.MatchString(scope):
			return invalid(".scopes[%d]: want printable characters without space, quote and backslash, at most %d", i, maxScope)
		case slices.Contains(auth.Scopes[:i], scope):
			return invalid(".scopes[%d]: it is named twice", i)
		}
	}
	return checkSecretName(auth.SecretRef, where+".secretRef")
}

func checkSecretName(ref v1alpha1.SecretReference, where string) error {
	if len(validation.IsDNS1123Subdomain(ref.Name)) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "%s.name: name a Secret: lower-case letters, digits, dashes and dots, at most %d", where, maxSecretName)
	}
	return nil
}

func checkOutcome(spec v1alpha1.WebhookSubscriptionSpec) error {
	if o := spec.Outcome; o != nil && o.Success == "" && o.GiveUp == "" {
		return reject(v1alpha1.ReasonInvalidOutcome, "spec.outcome: set success, giveUp or both")
	}
	return nil
}
