package egress

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// The headers of a delivery beside those of its signatures.
const (
	headerContentType   = "Content-Type"
	headerUserAgent     = "User-Agent"
	headerAuthorization = "Authorization"
	headerTimestamp     = "X-Clinik-Timestamp"
	headerEvent         = "X-Clinik-Event"
	headerDelivery      = "X-Clinik-Delivery-Id"
	headerAttempt       = "X-Clinik-Attempt"
	headerTraceparent   = "Traceparent"
)

const contentTypeJSON = "application/json"

// crlf ends a line of a message (RFC 9112, section 2.1).
const crlf = "\r\n"

// head is how every request to a target begins: the request line, and the headers that do not change. Nothing in it can
// end a line: Target.Check has seen to the headers, and package url to the rest.
func head(u *url.URL, header http.Header) ([]byte, parts) {
	var at parts
	b := []byte("POST " + requestTarget(u) + " HTTP/1.1" + crlf)
	at.line = len(b)
	b = appendHeader(b, "Host", hostOf(u))
	at.contentType = len(b)
	b = appendHeader(b, headerContentType, contentTypeJSON)
	at.rest = len(b)
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range header[name] {
			b = appendHeader(b, name, strings.TrimSpace(value))
		}
	}
	return b, at
}

// requestTarget is the URL's path and query as a request line has them (RFC 9112, section 3.2.1).
func requestTarget(u *url.URL) string { return strings.ReplaceAll(u.RequestURI(), " ", "%20") }

// hostOf is the URL's host as HTTP writes it: without a zone, which means something on this machine only, and in ASCII.
func hostOf(u *url.URL) string {
	host := u.Host
	if zone := strings.IndexByte(host, '%'); zone >= 0 {
		if end := strings.IndexByte(host, ']'); end > zone {
			host = host[:zone] + host[end:]
		}
	}
	if ascii, err := httpguts.PunycodeHostPort(host); err == nil {
		return ascii
	}
	return host
}

// appendHead appends all of the request that comes before its body.
func (c *Client) appendHead(b []byte, r *Request, target *preparedTarget, started time.Time) []byte {
	return r.appendHead(b, target, started, c.userAgent)
}

func (r *Request) appendHead(b []byte, target *preparedTarget, started time.Time, userAgent string) []byte {
	id := r.Delivery.String()
	if r.Shape == nil {
		b = append(b, target.head...)
	} else {
		b = r.Shape.appendHead(b, target)
	}
	if r.token != "" {
		b = appendHeader(b, headerAuthorization, "Bearer "+r.token)
	}
	if !target.named {
		b = appendHeader(b, headerUserAgent, userAgent)
	}
	b = appendNumber(b, "Content-Length", int64(len(r.Body)))
	b = appendHeader(b, headerEvent, string(r.Type))
	b = appendHeader(b, headerDelivery, id)
	b = appendNumber(b, headerAttempt, int64(r.Number))
	b = appendNumber(b, headerTimestamp, started.Unix())
	if r.Traceparent != "" && !target.traced && !r.Shape.sets(headerTraceparent) {
		b = appendHeader(b, headerTraceparent, r.Traceparent)
	}
	b = r.Target.Keys.AppendHeader(b, id, started, r.Body)
	return append(b, crlf...)
}

func appendHeader(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), crlf...)
}

func appendNumber(b []byte, name string, value int64) []byte {
	b = append(append(b, name...), ": "...)
	return append(strconv.AppendInt(b, value, 10), crlf...)
}
