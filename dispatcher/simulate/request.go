package simulate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// masked is what stands in place of a secret.
const masked = "***"

// masks say which headers hold a secret, by canonical name, and what is shown in its place.
type masks map[string]string

// mask fills the masks of a subscription's requests.
func (s *subscription) mask() {
	spec := &s.object.Spec
	s.masks = masks{}
	for _, header := range spec.Headers {
		if from := header.ValueFrom; from != nil {
			s.masks[http.CanonicalHeaderKey(header.Name)] = hidden("", of(from.SecretKeyRef))
		}
	}
	s.maskSignatures()
	if from := spec.URLFrom; from != nil {
		s.urlSecret = of(from.SecretKeyRef)
	}
	s.masks["Authorization"] = hidden("", "user and password of the URL")
	s.masks.authorization(spec.Auth)
	s.lookup = masks{}
	if spec.Lookup != nil && spec.Lookup.Auth != nil {
		s.lookup.authorization(spec.Lookup.Auth)
	} else {
		s.lookup.authorization(spec.Auth)
	}
	// A header of the spec may be named Authorization as well.
	for _, header := range spec.Headers {
		if name := http.CanonicalHeaderKey(header.Name); name == "Authorization" && header.ValueFrom == nil {
			s.masks[name] = hidden("", "spec.headers")
		}
	}
}

// maskSignatures names the keys of the signatures, in their order.
func (s *subscription) maskSignatures() {
	var standard []string
	shared := ""
	for i, ref := range routing.SigningReferences(&s.object.Spec) {
		if i >= len(s.entry.Keys) { // one key that is named twice signs once
			break
		}
		version := "v1,"
		if key, err := signature.ParseKey(s.entry.Keys[i]); err == nil && key.Public() != "" {
			version = "v1a,"
		} else if shared == "" {
			shared = of(ref)
		}
		standard = append(standard, hidden(version, of(ref)))
	}
	s.masks[http.CanonicalHeaderKey(signature.HeaderBody)] = hidden("", shared)
	s.masks[http.CanonicalHeaderKey(signature.HeaderBodyAlias)] = hidden("", shared)
	s.masks[http.CanonicalHeaderKey(signature.HeaderStandard)] = strings.Join(standard, " ")
}

func hidden(before, from string) string { return before + masked + " (" + from + ")" }

func of(ref v1alpha1.SecretKeyReference) string {
	return fmt.Sprintf("key %s of Secret %s", ref.Key, ref.Name)
}

// authorization masks the header that authenticates.
func (m masks) authorization(auth *v1alpha1.Auth) {
	const name = "Authorization"
	switch {
	case auth == nil:
	case auth.Basic != nil:
		m[name] = hidden("Basic ", "Secret "+auth.Basic.SecretRef.Name)
	case auth.Bearer != nil:
		m[name] = hidden("Bearer ", of(auth.Bearer.SecretKeyRef))
	case auth.APIKey != nil:
		m[http.CanonicalHeaderKey(auth.APIKey.Header)] = hidden("", of(auth.APIKey.SecretKeyRef))
	case auth.OAuth2ClientCredentials != nil:
		m[name] = hidden("Bearer ", "a token for Secret "+auth.OAuth2ClientCredentials.SecretRef.Name)
	}
}

// recorder takes the requests of one attempt in place of the network. It is a payload.Client.
type recorder struct {
	lookup []byte // nil if there is no answer

	request  *egress.Request
	document *egress.Document
}

// Send implements payload.Client. There is no answer, so no outcome is evaluated.
func (r *recorder) Send(_ context.Context, request egress.Request) egress.Result {
	r.request = &request
	return egress.Result{}
}

// Fetch implements payload.Client.
func (r *recorder) Fetch(_ context.Context, d egress.Document) ([]byte, egress.Result) {
	r.document = &d
	if r.lookup == nil {
		return nil, egress.Result{Reason: ReasonLookupNeeded}
	}
	return r.lookup, egress.Result{StatusCode: http.StatusOK}
}

// shown returns the recorded request with its secrets masked.
func (s *subscription) shown(r *egress.Request, at time.Time, version string) (*Request, error) {
	if s.entry.Pull {
		return s.shownPulled(r, at)
	}
	composed, err := egress.Compose(*r, at, version, masked)
	if err != nil {
		return nil, err
	}
	suffix := ""
	if r.Shape != nil {
		suffix = r.Shape.Suffix
	}
	u := composed.URL.String()
	if s.urlSecret != "" {
		u = originOf(composed.URL) + "/" + masked + suffix
	}
	request := requestOf(composed.Head, u, s.masks)
	request.Body = string(r.Body)
	return request, nil
}

// shownPulled is what a consumer that pulls gets: header and body, without what is about a connection to an endpoint.
func (s *subscription) shownPulled(r *egress.Request, at time.Time) (*Request, error) {
	fields, err := egress.Fields(*r, at)
	if err != nil {
		return nil, err
	}
	request := &Request{Body: string(r.Body)}
	for _, field := range fields {
		request.Header = append(request.Header, s.masks.line(field.Name, field.Value))
	}
	return request, nil
}

// shownLookup is the same of the request for the lookup's document.
func (s *subscription) shownLookup(d *egress.Document, version string) (*Request, error) {
	composed, err := egress.ComposeGet(*d, version, masked)
	if err != nil {
		return nil, err
	}
	return requestOf(composed.Head, composed.URL.String(), s.lookup), nil
}

func originOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// requestOf reads the head of a request, and masks it.
func requestOf(head []byte, u string, m masks) *Request {
	request := &Request{URL: u}
	for i, line := range strings.Split(strings.TrimRight(string(head), "\r\n"), "\r\n") {
		if i == 0 {
			request.Method, _, _ = strings.Cut(line, " ")
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		request.Header = append(request.Header, m.line(name, strings.TrimSpace(value)))
	}
	return request
}

// line is a line of a header, masked if it holds a secret.
func (m masks) line(name, value string) HeaderLine {
	if mask, ok := m[http.CanonicalHeaderKey(name)]; ok {
		return HeaderLine{Name: name, Value: mask, Masked: true}
	}
	return HeaderLine{Name: name, Value: value}
}
