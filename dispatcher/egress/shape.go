package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Shape is how a request differs from every other delivery to its target. It is immutable.
type Shape struct {
	// Method is POST, PUT or PATCH; POST if empty.
	Method string
	// Suffix is appended to the target's URL: a path that begins with a slash, a query that begins with ? or &, or both.
	Suffix string
	// ContentType of the body; application/json if empty.
	ContentType string
	// Header is added to the target's; it replaces what has the same name there. Nothing in it is Reserved.
	Header []Field
	// Attributes are the headers of a CloudEvent; each name begins with ce-.
	Attributes []Field
}

// Field is one line of a header.
type Field struct{ Name, Value string }

const (
	// maxSuffix and maxFields bound what a Shape adds to a request, in bytes.
	maxSuffix = 8 << 10
	maxFields = 16 << 10
)

// parts are the places in a head at which its request line, its Content-Type and the rest begin or end.
type parts struct{ line, contentType, rest int }

// Check returns an error if a request of the shape cannot be sent to the target. It names the part at fault and shows
// nothing of it, but for the name of a header.
func (s *Shape) Check(t *Target) error {
	if s == nil {
		return nil
	}
	p, err := t.prepare()
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", http.MethodPost, http.MethodPut, http.MethodPatch}, s.Method) {
		return errors.New("the method is not POST, PUT or PATCH")
	}
	if !httpguts.ValidHeaderFieldValue(s.ContentType) {
		return errors.New("the content type has a control character")
	}
	if _, err := appendSuffix(p.requestTarget(), s.Suffix); err != nil {
		return err
	}
	return s.checkFields()
}

func (s *Shape) checkFields() error {
	size := 0
	for _, f := range slices.Concat(s.Header, s.Attributes) {
		if !httpguts.ValidHeaderFieldName(f.Name) {
			return errors.New("a header's name is not a token of letters, digits and dashes")
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("the value of header %s has a control character", f.Name)
		}
		size += len(f.Name) + len(f.Value)
	}
	if size > maxFields {
		return fmt.Errorf("the headers are longer than %d bytes", maxFields)
	}
	for _, f := range s.Header {
		if Reserved(f.Name) || strings.EqualFold(f.Name, headerAuthorization) {
			return fmt.Errorf("header %s is not one that a transform may set", f.Name)
		}
	}
	for _, f := range s.Attributes {
		if !strings.HasPrefix(strings.ToLower(f.Name), "ce-") {
			return fmt.Errorf("header %s is not one of a CloudEvent", f.Name)
		}
	}
	return nil
}

// requestTarget is what stands in the request line of every delivery.
func (p *preparedTarget) requestTarget() string {
	line := string(p.head[:p.parts.line])
	return strings.TrimSuffix(strings.TrimPrefix(line, "POST "), " HTTP/1.1"+crlf)
}

// appendHead appends the head of a request of the shape, which has been checked.
func (s *Shape) appendHead(b []byte, p *preparedTarget) []byte {
	method, contentType := s.Method, s.ContentType
	if method == "" {
		method = http.MethodPost
	}
	if contentType == "" {
		contentType = contentTypeJSON
	}
	at, _ := appendSuffix(p.requestTarget(), s.Suffix) // Check has refused what fails
	b = append(append(append(append(b, method...), ' '), at...), " HTTP/1.1"+crlf...)
	b = append(b, p.head[p.parts.line:p.parts.contentType]...)
	b = appendHeader(b, headerContentType, contentType)
	for line := range strings.Lines(string(p.head[p.parts.rest:])) {
		name, _, _ := strings.Cut(line, ":")
		if !s.sets(name) {
			b = append(b, line...)
		}
	}
	for _, f := range slices.Concat(s.Header, s.Attributes) {
		b = appendHeader(b, f.Name, strings.TrimSpace(f.Value))
	}
	return b
}

// sets reports whether the shape has a header of its own with the name.
func (s *Shape) sets(name string) bool {
	return s != nil && slices.ContainsFunc(s.Header, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

// appendSuffix appends a suffix to a request target. What was there stays its beginning: a suffix with a fragment, a
// segment of dots, an empty segment or a character that a URL does not have (RFC 3986, section 3.3) is refused.
func appendSuffix(target, suffix string) (string, error) {
	if suffix == "" {
		return target, nil
	}
	if len(suffix) > maxSuffix {
		return "", fmt.Errorf("the URL's suffix is longer than %d bytes", maxSuffix)
	}
	path, query := suffix, ""
	if i := strings.IndexByte(suffix, '?'); i >= 0 {
		path, query = suffix[:i], suffix[i+1:]
	} else if suffix[0] == '&' {
		path, query = "", suffix[1:]
	}
	if err := checkSuffix(path, query); err != nil {
		return "", err
	}
	base, before, queried := strings.Cut(target, "?")
	if path != "" {
		base = strings.TrimSuffix(base, "/") + path
	}
	switch {
	case before != "" && query != "":
		return base + "?" + before + "&" + query, nil
	case queried || query != "":
		return base + "?" + before + query, nil
	}
	return base, nil
}

func checkSuffix(path, query string) error {
	if path != "" && path[0] != '/' {
		return errors.New("the URL's suffix begins with none of /, ? and &")
	}
	if !isURLText(path, pathCharacters) || !isURLText(query, pathCharacters+"?") {
		return errors.New("the URL's suffix has a character that must be escaped, or an escape that is none")
	}
	for i, segment := range strings.Split(path, "/") {
		if i > 0 && (segment == "" && i < strings.Count(path, "/") || hasDots(segment)) {
			return errors.New("the URL's suffix has an empty segment, or one that leads out of the path")
		}
	}
	return nil
}

// pathCharacters may stand in a path beside letters, digits and escapes (RFC 3986, section 3.3).
const pathCharacters = "/-._~!$&'()*+,;=:@"

func isURLText(text, beside string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(beside, c) >= 0:
		case c == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// hasDots reports whether a server could take a part of the segment for "." or "..", however often it decodes it, or
// finds a control character in it.
func hasDots(segment string) bool {
	for {
		for part := range strings.FieldsFuncSeq(segment, func(r rune) bool { return r == '/' || r == '\\' || r == ';' }) {
			if part == "." || part == ".." {
				return true
			}
		}
		if strings.ContainsFunc(segment, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return true
		}
		decoded, err := url.PathUnescape(segment)
		if err != nil || decoded == segment {
			return false
		}
		segment = decoded
	}
}
