package egress

import (
	"bytes"
	"net/http"
	"net/url"
	"time"
)

// A Composed request is what Send or Fetch would write. It is for tools, and holds secrets.
type Composed struct {
	// URL is where the request goes. Its path and query are those of the request line.
	URL *url.URL
	// Head is the request line and the header, with the empty line behind it.
	Head []byte
}

// userAgentOf is the User-Agent of a version of the product.
func userAgentOf(version string) string { return "EventFlow/" + version }

// Compose returns a request as Send writes it at a time. token stands for the access token, where the target fetches one. The
// error is what Send ends with as ReasonRequestInvalid: it shows nothing of the target.
func Compose(r Request, at time.Time, version, token string) (Composed, error) {
	target, err := r.Target.prepare()
	if err == nil {
		err = r.Shape.Check(r.Target)
	}
	if err != nil {
		return Composed{}, err
	}
	if target.tokens != nil {
		r.token = token
	}
	suffix := ""
	if r.Shape != nil {
		suffix = r.Shape.Suffix
	}
	line, _ := appendSuffix(target.requestTarget(), suffix) // Check has refused what fails
	u, err := parseURL(r.Target.URL)
	if err != nil {
		return Composed{}, err
	}
	return Composed{URL: resolved(u, line), Head: r.appendHead(nil, target, at, userAgentOf(version))}, nil
}

// resolved is the URL with what stands in a request line, and without user and fragment.
func resolved(u *url.URL, line string) *url.URL {
	whole, err := url.Parse(u.Scheme + "://" + hostOf(u) + line)
	if err != nil { // a request line is part of no other URL
		return &url.URL{Scheme: u.Scheme, Host: hostOf(u)}
	}
	return whole
}

// ComposeGet returns the request for a document as Fetch writes it; token is Compose's.
func ComposeGet(d Document, version, token string) (Composed, error) {
	u, err := parseURL(d.URL)
	if err != nil {
		return Composed{}, err
	}
	header := make(http.Header)
	if d.Authorized {
		if header, err = d.Target.authorization(token); err != nil {
			return Composed{}, err
		}
	}
	return Composed{URL: resolved(u, requestTarget(u)), Head: appendGet(nil, u, header, userAgentOf(version))}, nil
}

// authorization is the header that authenticates the request for a document.
func (t *Target) authorization(token string) (http.Header, error) {
	header := make(http.Header)
	if err := t.Authorization.addTo(header); err != nil {
		return nil, err
	}
	if t.Authorization.credentials() != nil {
		header.Set(headerAuthorization, "Bearer "+token)
	}
	return header, nil
}

// Fields returns the header of a request as Send writes it at a time, without what is about its connection: for a consumer that
// gets the delivery in the answer to its own request. The error is that of Compose.
func Fields(r Request, at time.Time) ([]Field, error) {
	composed, err := Compose(r, at, "", "")
	if err != nil {
		return nil, err
	}
	var fields []Field
	lines := bytes.Split(composed.Head, []byte(crlf))
	for _, line := range lines[1:] { // behind the request line
		name, value, found := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Host", "Content-Length", headerUserAgent:
		default:
			if found {
				fields = append(fields, Field{Name: string(name), Value: string(value)})
			}
		}
	}
	return fields, nil
}
