package routing

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/api/spelling"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The bounds of the schema in package v1alpha1.
const (
	minURLLength         = 8
	maxURLLength         = 2048
	maxEvents            = 100
	maxHeaders           = 32
	maxHeaderName        = 128
	maxHeaderValue       = 4096
	maxSecretHeaderValue = 8192 // a value from a Secret meets no schema; tokens can be long
	// maxHeaderBytes bounds the names and values of all headers together; the schema counts characters, and cannot count
	// what comes from Secrets.
	maxHeaderBytes    = 16 << 10
	maxSecretName     = 253
	maxSecretKey      = 253
	maxDispatcherName = 40
)

var (
	secretKeyRule = regexp.MustCompile(`^[-._a-zA-Z0-9]+$`)
	tokenRule     = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
	// reservedRule is the schema's, and of the headers that package egress sets or drops. User-Agent is not among them.
	reservedRule = regexp.MustCompile(`^(host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|http2-settings|keep-alive|proxy-.*|accept-encoding|x-clinik-.*|x-clinikapi-.*|webhook-.*|ce-.*)$`)
)

// withDefaults returns the spec as an API server would keep it. The argument is not modified.
func withDefaults(spec v1alpha1.WebhookSubscriptionSpec) v1alpha1.WebhookSubscriptionSpec {
	setDefault(&spec.DispatcherRef.Name, "default")
	setDefault(&spec.Timeout, metav1.Duration{Duration: 30 * time.Second})
	setDefault(&spec.Retry.InitialDelay, metav1.Duration{Duration: 30 * time.Second})
	setDefault(&spec.Retry.MaxDelay, metav1.Duration{Duration: 2 * time.Hour})
	setDefault(&spec.Retry.MaxAge, metav1.Duration{Duration: 72 * time.Hour})
	setDefault(&spec.Retry.Factor, 4)
	setDefault(&spec.Delivery.MaxInFlight, 32)
	setDefault(&spec.Delivery.Ordering, v1alpha1.OrderingNone)
	setDefault(&spec.Delivery.Mode, v1alpha1.DeliveryPush)
	setDefault(&spec.Payload.Mode, v1alpha1.PayloadFull)
	setDefault(&spec.FilterErrors, v1alpha1.FilterErrorsDeliver)
	setDefault(&spec.Payload.Format, v1alpha1.FormatStandard)
	if spec.Suspend == nil {
		spec.Suspend = new(bool)
	}
	spec.Schedule, spec.Transform, spec.Auth = spec.Schedule.DeepCopy(), spec.Transform.DeepCopy(), spec.Auth.DeepCopy()
	if s := spec.Schedule; s != nil {
		setDefault(&s.IfPast, v1alpha1.IfPastSkip)
		if s.Window != nil {
			setDefault(&s.Window.Outside, v1alpha1.OutsideLater)
		}
	}
	if spec.ServiceRef != noService {
		setDefault(&spec.ServiceRef.Path, "/")
		setDefault(&spec.ServiceRef.Scheme, v1alpha1.ServiceHTTPS)
	}
	if t := spec.Transform; t != nil {
		setDefault(&t.ContentType, v1alpha1.ContentTypeJSON)
		setDefault(&t.Method, v1alpha1.Method(http.MethodPost))
	}
	auths := []*v1alpha1.Auth{spec.Auth}
	if spec.Lookup = spec.Lookup.DeepCopy(); spec.Lookup != nil {
		auths = append(auths, spec.Lookup.Auth)
	}
	for _, a := range auths {
		if a != nil && a.OAuth2ClientCredentials != nil {
			setDefault(&a.OAuth2ClientCredentials.CredentialsIn, v1alpha1.CredentialsInHeader)
		}
	}
	return spec
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Generation is metadata.generation, or a positive hash of the spec where a manifest has none.
func Generation(sub *v1alpha1.WebhookSubscription) int64 {
	if sub.Generation > 0 {
		return sub.Generation
	}
	text, err := json.Marshal(&sub.Spec)
	if err != nil { // no value of the type is beyond JSON
		return 1
	}
	return positiveHash(text)
}

// positiveHash is 62 bits of a hash, and never 0.
func positiveHash(text []byte) int64 {
	sum := sha256.Sum256(text)
	return int64(binary.BigEndian.Uint64(sum[:])>>1) | 1
}

// checkMetadata checks what an API server checks before the schema.
func checkMetadata(sub *v1alpha1.WebhookSubscription) error {
	if problems := validation.IsDNS1123Subdomain(sub.Name); len(problems) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "metadata.name: %s", problems[0])
	}
	if problems := validation.IsDNS1123Label(sub.Namespace); len(problems) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "metadata.namespace: %s", problems[0])
	}
	return nil
}

// checkShape checks what needs no Secret and no policy.
func (c *compiler) checkShape() error {
	for _, check := range []func(v1alpha1.WebhookSubscriptionSpec) error{
		checkReferences, checkEvents, checkPull, checkURLChoice, checkTLS, checkHeaderNames, checkDurations, checkLimits,
		checkSchedule, checkLookup, checkPayload, checkTransform, checkAuth, checkHandshake, checkOutcome,
	} {
		if err := check(c.spec); err != nil {
			return err
		}
	}
	return nil
}

func checkReferences(spec v1alpha1.WebhookSubscriptionSpec) error {
	dispatcher := spec.DispatcherRef
	if len(dispatcher.Name) > maxDispatcherName || len(validation.IsDNS1123Label(dispatcher.Name)) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.dispatcherRef.name: want a DNS label of at most %d characters, such as default", maxDispatcherName)
	}
	if dispatcher.Namespace != "" && len(validation.IsDNS1123Label(dispatcher.Namespace)) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.dispatcherRef.namespace: want a DNS label, such as eventflow-system")
	}
	if err := checkReference("spec.signing.secretRef", spec.Signing.SecretRef); err != nil {
		return err
	}
	if ref := spec.Signing.PreviousSecretRef; ref != nil {
		if err := checkReference("spec.signing.previousSecretRef", *ref); err != nil {
			return err
		}
	}
	if ref := spec.Signing.NextSecretRef; ref != nil {
		if err := checkReference("spec.signing.nextSecretRef", *ref); err != nil {
			return err
		}
	}
	if from := spec.URLFrom; from != nil {
		return checkReference("spec.urlFrom.secretKeyRef", from.SecretKeyRef)
	}
	return nil
}

func checkReference(where string, ref v1alpha1.SecretKeyReference) error {
	switch {
	case len(validation.IsDNS1123Subdomain(ref.Name)) > 0:
		return reject(v1alpha1.ReasonInvalidSpec, "%s.name: name a Secret: lower-case letters, digits, dashes and dots, at most %d", where, maxSecretName)
	case ref.Key == "" || len(ref.Key) > maxSecretKey || !secretKeyRule.MatchString(ref.Key):
		return reject(v1alpha1.ReasonInvalidSpec, "%s.key: name a key of the Secret: letters, digits, '-', '.' and '_', at most %d", where, maxSecretKey)
	}
	return nil
}

func checkEvents(spec v1alpha1.WebhookSubscriptionSpec) error {
	if n := len(spec.Events); n < 1 || n > maxEvents {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.events: name 1 to %d patterns, such as \"patient.*\"", maxEvents)
	}
	for i, text := range spec.Events {
		if slices.Contains(spec.Events[:i], text) {
			return reject(v1alpha1.ReasonInvalidSpec, "spec.events[%d]: %s is named twice", i, quote(text))
		}
	}
	return nil
}

// checkPull checks what does not go with a consumer that asks for its deliveries.
func checkPull(spec v1alpha1.WebhookSubscriptionSpec) error {
	invalid := func(fields, why string) error {
		return reject(v1alpha1.ReasonInvalidSpec, "%s: not with spec.delivery.mode Pull: %s; remove it", fields, why)
	}
	t := spec.Transform
	switch {
	case spec.Delivery.Mode == v1alpha1.DeliveryPush:
		return nil
	case spec.Delivery.Mode != v1alpha1.DeliveryPull:
		return reject(v1alpha1.ReasonInvalidSpec, "spec.delivery.mode: must be Push or Pull")
	case spec.URL != "" || spec.URLFrom != nil || spec.ServiceRef != noService:
		return invalid("spec.url, spec.urlFrom and spec.serviceRef", "the consumer asks for its deliveries")
	case spec.Auth != nil || spec.TLS != v1alpha1.SubscriptionTLS{} || spec.Handshake != nil || spec.Outcome != nil || spec.Lookup != nil:
		return invalid("spec.auth, spec.tls, spec.handshake, spec.outcome and spec.lookup", "they are about an endpoint")
	case t != nil && (t.URLSuffix != "" || t.Method != http.MethodPost):
		return invalid("spec.transform.method and spec.transform.urlSuffix", "they are about an endpoint")
	case spec.Delivery.Ordering == v1alpha1.OrderingByResource || spec.Delivery.RateLimit != nil:
		return invalid("spec.delivery.ordering and spec.delivery.rateLimit", "the consumer gets all deliveries in order, at its own pace")
	}
	return nil
}

func checkURLChoice(spec v1alpha1.WebhookSubscriptionSpec) error {
	set := 0
	for _, is := range []bool{spec.URL != "", spec.URLFrom != nil, spec.ServiceRef != noService} {
		if is {
			set++
		}
	}
	if set != 1 && spec.Delivery.Mode != v1alpha1.DeliveryPull {
		return reject(v1alpha1.ReasonInvalidURL, "set exactly one of spec.url, spec.urlFrom and spec.serviceRef")
	}
	return checkService(spec.ServiceRef)
}

func checkTLS(spec v1alpha1.WebhookSubscriptionSpec) error {
	if err := checkTLSTerms(spec.TLS); err != nil {
		return err
	}
	secret, configMap := spec.TLS.CASecretRef, spec.TLS.CAConfigMapRef
	switch {
	case secret != nil && configMap != nil:
		return reject(v1alpha1.ReasonInvalidSpec, "set at most one of spec.tls.caSecretRef and spec.tls.caConfigMapRef")
	case secret != nil:
		return checkReference("spec.tls.caSecretRef", *secret)
	case configMap != nil:
		return checkReference("spec.tls.caConfigMapRef", v1alpha1.SecretKeyReference(*configMap))
	}
	return nil
}

// checkURL tells what is wrong with a URL, without showing it. Only one that comes from a Secret may hold a user name and
// password.
func checkURL(text, where string, secret, allowHTTP bool) error {
	invalid := func(format string, args ...any) error {
		return reject(v1alpha1.ReasonInvalidURL, where+": "+format, args...)
	}
	if n := utf8.RuneCountInString(text); n < minURLLength || n > maxURLLength || !utf8.ValidString(text) {
		return invalid("want an absolute http or https URL of %d to %d characters, such as https://example.com/hooks", minURLLength, maxURLLength)
	}
	if odd := spelling.Odd([]byte(text)); odd != "" {
		return invalid("the URL has %s: write it without", odd)
	}
	if strings.Contains(text, " ") {
		return invalid("the URL must not contain spaces")
	}
	if strings.Contains(text, "#") {
		return invalid("the URL must not have a fragment (#…)")
	}
	u, err := url.ParseRequestURI(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Opaque != "" {
		return invalid("want an absolute http or https URL, such as https://example.com/hooks")
	}
	if strings.Contains(u.Hostname(), "%") {
		return invalid("the URL's host must have no zone and no percent sign")
	}
	if u.User != nil && !secret {
		return invalid("the URL must not hold a user name or password: put the URL into a Secret and name it in spec.urlFrom")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return invalid("the URL's port must be from 1 to 65535")
		}
	}
	if u.Scheme == "http" && !allowHTTP {
		return reject(v1alpha1.ReasonHTTPNotAllowed, "%s: use https; http needs spec.egress.allowHTTP of the WebhookDispatcher (--egress-allow-http)", where)
	}
	return nil
}

func checkHeaderNames(spec v1alpha1.WebhookSubscriptionSpec) error {
	if len(spec.Headers) > maxHeaders {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.headers: at most %d headers", maxHeaders)
	}
	seen := make(map[string]bool, len(spec.Headers))
	for i, header := range spec.Headers {
		where := "spec.headers[" + strconv.Itoa(i) + "]"
		canonical := http.CanonicalHeaderKey(header.Name)
		switch {
		case len(header.Name) > maxHeaderName || !tokenRule.MatchString(header.Name):
			return reject(v1alpha1.ReasonInvalidHeader, "%s.name: want an HTTP header name of at most %d letters, digits and dashes", where, maxHeaderName)
		case reservedHeader(header.Name):
			return reject(v1alpha1.ReasonInvalidHeader, "%s.name: %s is set by Event Flow or by HTTP itself: remove it", where, header.Name)
		case seen[canonical]:
			return reject(v1alpha1.ReasonInvalidHeader, "%s.name: %s is named twice (case does not matter)", where, header.Name)
		case (header.Value != "") == (header.ValueFrom != nil):
			return reject(v1alpha1.ReasonInvalidHeader, "%s: set exactly one of value and valueFrom", where)
		case utf8.RuneCountInString(header.Value) > maxHeaderValue:
			return reject(v1alpha1.ReasonInvalidHeader, "%s.value: at most %d characters", where, maxHeaderValue)
		}
		seen[canonical] = true
		if from := header.ValueFrom; from != nil {
			if err := checkReference(where+".valueFrom.secretKeyRef", from.SecretKeyRef); err != nil {
				return err
			}
		} else if err := checkHeaderValue(header.Value, where, header.Name); err != nil {
			return err
		}
	}
	return nil
}

// reservedHeader reports whether a subscription may not set a header. Servers that hand headers to a program as variables,
// as CGI does (RFC 3875, section 4.1.18), take an underscore for a dash.
func reservedHeader(name string) bool {
	return reservedRule.MatchString(strings.ReplaceAll(strings.ToLower(name), "_", "-"))
}

// checkSecretValue tells what is wrong with a header's value that comes from a Secret, without showing it: a token, which
// has no character that nobody sees. What stands in a spec may be for people.
func checkSecretValue(value, where, name string) error {
	if odd := spelling.Odd([]byte(strings.ReplaceAll(value, "\t", " "))); odd != "" { // tabs are white space in headers
		return reject(v1alpha1.ReasonInvalidHeader, "%s: the value of %s has %s: write it without into the Secret", where, name, odd)
	}
	return checkHeaderValue(value, where, name)
}

// checkHeaderValue tells what is wrong with a header's value, without showing it.
func checkHeaderValue(value, where, name string) error {
	control := strings.IndexFunc(value, func(r rune) bool { return r != '\t' && unicode.IsControl(r) })
	switch {
	case value == "":
		return reject(v1alpha1.ReasonInvalidHeader, "%s: the value of %s is empty", where, name)
	case len(value) > max(maxSecretHeaderValue, maxHeaderValue*utf8.UTFMax):
		return reject(v1alpha1.ReasonInvalidHeader, "%s: the value of %s is too long", where, name)
	case !utf8.ValidString(value):
		return reject(v1alpha1.ReasonInvalidHeader, "%s: the value of %s is not UTF-8", where, name)
	case control >= 0:
		r, _ := utf8.DecodeRuneInString(value[control:])
		return reject(v1alpha1.ReasonInvalidHeader, "%s: the value of %s has %s in it: remove it", where, name, spelling.Name(r))
	}
	return nil
}

func checkDurations(spec v1alpha1.WebhookSubscriptionSpec) error {
	for _, field := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
		bounds      string
	}{
		{"spec.timeout", spec.Timeout.Duration, time.Second, time.Minute, "from 1s to 60s"},
		{"spec.retry.initialDelay", spec.Retry.InitialDelay.Duration, time.Second, 24 * time.Hour, "from 1s to 24h"},
		{"spec.retry.maxDelay", spec.Retry.MaxDelay.Duration, time.Second, 24 * time.Hour, "from 1s to 24h"},
		{"spec.retry.maxAge", spec.Retry.MaxAge.Duration, time.Second, 168 * time.Hour, "from 1s to 168h"},
	} {
		if !inRange(field.value, field.least, field.most) {
			return reject(v1alpha1.ReasonInvalidSpec, "%s: must be %s", field.name, field.bounds)
		}
	}
	if spec.Retry.InitialDelay.Duration > spec.Retry.MaxDelay.Duration {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.retry: initialDelay must not be longer than maxDelay")
	}
	return nil
}

func checkLimits(spec v1alpha1.WebhookSubscriptionSpec) error {
	switch {
	case spec.Retry.Factor < 1 || spec.Retry.Factor > 10:
		return reject(v1alpha1.ReasonInvalidSpec, "spec.retry.factor: must be from 1 to 10")
	case spec.Retry.MaxAttempts != nil && (*spec.Retry.MaxAttempts < 1 || *spec.Retry.MaxAttempts > 10000):
		return reject(v1alpha1.ReasonInvalidSpec, "spec.retry.maxAttempts: must be from 1 to 10000")
	case spec.Delivery.MaxInFlight < 1 || spec.Delivery.MaxInFlight > 256:
		return reject(v1alpha1.ReasonInvalidSpec, "spec.delivery.maxInFlight: must be from 1 to 256")
	case spec.Delivery.Ordering != v1alpha1.OrderingNone && spec.Delivery.Ordering != v1alpha1.OrderingByResource:
		return reject(v1alpha1.ReasonInvalidSpec, "spec.delivery.ordering: must be None or ByResource")
	case spec.Delivery.RateLimit != nil && (spec.Delivery.RateLimit.RequestsPerSecond < 1 || spec.Delivery.RateLimit.RequestsPerSecond > 10000):
		return reject(v1alpha1.ReasonInvalidSpec, "spec.delivery.rateLimit.requestsPerSecond: must be from 1 to 10000")
	case spec.Payload.Mode != v1alpha1.PayloadFull && spec.Payload.Mode != v1alpha1.PayloadThin:
		return reject(v1alpha1.ReasonInvalidSpec, "spec.payload.mode: must be Full or Thin")
	}
	return nil
}
