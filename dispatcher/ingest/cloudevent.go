package ingest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// CloudEvents 1.0 is read here, in its JSON format and its HTTP binding, and not by cloudevents/sdk-go: the SDK takes
// the last of duplicate attributes, takes invalid UTF-8 and what follows the document, does not bound nesting, and tells
// nothing of where a document is broken. What an event means would then depend on the format it was sent in.
//
// See https://github.com/cloudevents/spec/tree/v1.0.2/cloudevents: spec.md, formats/json-format.md and
// bindings/http-protocol-binding.md.

// maxExtensions bounds the extension attributes of a CloudEvent. They are checked and not delivered.
const maxExtensions = 64

// cloudEvent are the attributes of a CloudEvent that matter here.
type cloudEvent struct {
	specVersion, id, source, eventType, contentType string
	traceparent                                     string
	data                                            []byte
	encoded                                         []byte // data_base64
}

// structured appends to into the CloudEvent that a body is.
func (p *parser) structured(body []byte, into []incoming) ([]incoming, error) {
	if err := p.document.start(body); err != nil {
		return into, err
	}
	return p.single(into, p.cloudEvent)
}

// cloudEventBatch appends to into the CloudEvents of a batch.
func (p *parser) cloudEventBatch(body []byte, into []incoming) ([]incoming, error) {
	if err := p.document.start(body); err != nil {
		return into, err
	}
	if kind := p.document.decoder.PeekKind(); kind != jsontext.KindBeginArray && kind != jsontext.KindInvalid {
		return into, newProblem(malformed, "a batch of CloudEvents must be a JSON array; send a single one with Content-Type %s", cloudEventType)
	}
	return p.array(into, p.cloudEvent)
}

// cloudEvent reads one CloudEvent in the JSON format.
func (p *parser) cloudEvent(in *incoming) error {
	var ce cloudEvent
	var seen []string
	err := p.document.members("a CloudEvent", func(key []byte) error {
		name := string(key)
		if slices.Contains(seen, name) {
			return newProblem(malformed, "attribute %s stands twice in the CloudEvent", quoted(name))
		}
		if len(seen) == maxExtensions {
			return newProblem(malformed, "the CloudEvent has more than %d attributes", maxExtensions)
		}
		seen = append(seen, name)
		return p.readAttribute(in, &ce, name)
	})
	if err != nil {
		return err
	}
	if err := p.decodeData(&ce); err != nil {
		return err
	}
	return p.finishCloudEvent(in, &ce)
}

// readAttribute reads the value of one attribute, or the data.
func (p *parser) readAttribute(in *incoming, ce *cloudEvent, name string) (err error) {
	switch name {
	case "data":
		ce.data, err = p.document.optionalObject("data")
	case "data_base64":
		ce.encoded, _, err = p.document.string(name)
	case "time":
		err = p.readTimestamp(in, name)
	case "specversion", "id", "source", "type", "datacontenttype", "traceparent", "subject", "dataschema":
		var text []byte
		if text, _, err = p.document.string(name); err == nil {
			ce.set(name, string(text))
		}
	default:
		err = p.skipExtension(name)
	}
	return err
}

// set takes an attribute that is text.
func (ce *cloudEvent) set(name, value string) {
	switch name {
	case "specversion":
		ce.specVersion = value
	case "id":
		ce.id = value
	case "source":
		ce.source = value
	case "type":
		ce.eventType = value
	case "datacontenttype":
		ce.contentType = value
	case "traceparent":
		ce.traceparent = traceparent([]string{value})
	}
}

// skipExtension checks an extension attribute: a lower-case name, and a string, a number, a truth value or null.
func (p *parser) skipExtension(name string) error {
	if !isAttributeName(name) {
		return newProblem(malformed, "%s is not the name of a CloudEvent's attribute: want lower-case letters and digits", quoted(name))
	}
	value, err := p.document.decoder.ReadValue()
	if err != nil {
		return p.document.malformed(err)
	}
	if kind := value.Kind(); kind == jsontext.KindBeginObject || kind == jsontext.KindBeginArray {
		return newProblem(malformed, "attribute %s must be a string, a number or a boolean", quoted(name))
	}
	return nil
}

func isAttributeName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) < 0
}

// decodeData decodes data_base64, which has to hold a JSON object, as everything does that is delivered.
func (p *parser) decodeData(ce *cloudEvent) error {
	if ce.encoded == nil {
		return nil
	}
	if ce.data != nil {
		return newProblem(malformed, "a CloudEvent has data or data_base64, not both")
	}
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(ce.encoded)))
	n, err := base64.StdEncoding.Decode(decoded, ce.encoded)
	if err != nil {
		return newProblem(malformed, "data_base64 is not base64 (RFC 4648, section 4)")
	}
	ce.data, err = wholeObject(decoded[:n], "data_base64")
	return err
}

// wholeObject returns the JSON object that text is, without the white space around it.
func wholeObject(text []byte, what string) ([]byte, error) {
	var d document // its own: the request's is in the middle of a batch
	if err := d.start(text); err != nil {
		return nil, err
	}
	object, err := d.object(what)
	if err != nil {
		return nil, err
	}
	return object, d.end()
}

// finishCloudEvent checks that all is there that a CloudEvent needs, and makes an event of it.
func (p *parser) finishCloudEvent(in *incoming, ce *cloudEvent) error {
	for _, attribute := range []struct{ name, value string }{
		{"specversion", ce.specVersion}, {"id", ce.id}, {"source", ce.source}, {"type", ce.eventType},
	} {
		if attribute.value == "" {
			return newProblem(malformed, "the CloudEvent has no %q; it needs specversion, id, source, type and data", attribute.name)
		}
	}
	if ce.specVersion != "1.0" {
		return newProblem(malformed, `the CloudEvent's specversion must be "1.0"`)
	}
	if ce.contentType != "" && !isJSON(ce.contentType) {
		return newProblem(unsupportedMedia, "the CloudEvent's datacontenttype must be application/json: its data is delivered as a JSON object")
	}
	if ce.data == nil {
		return newProblem(malformed, "the CloudEvent has no data; it has to be a JSON object")
	}
	var err error
	if in.eventType, err = p.lookup([]byte(ce.eventType)); err != nil {
		return err
	}
	in.id, in.data, in.traceparent = cloudEventID(ce.source, ce.id), ce.data, ce.traceparent
	return nil
}

// cloudEventID is an event's id made of what makes a CloudEvent unique: "ce_" and 40 hexadecimal digits.
func cloudEventID(source, id string) string {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(source))) // so that no two pairs hash the same text
	h.Write(length[:])
	h.Write([]byte(source))
	h.Write([]byte(id))
	return "ce_" + hex.EncodeToString(h.Sum(nil)[:20])
}

// isJSON reports whether a media type is JSON, by name or by suffix.
func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" || mediaType == "text/json" || strings.HasSuffix(mediaType, "+json"))
}

// attributePrefix is how a header that is an attribute of a CloudEvent begins, in net/http's spelling.
const attributePrefix = "Ce-"

// isBinaryCloudEvent reports whether the headers are those of a CloudEvent in binary mode, be it incomplete.
func isBinaryCloudEvent(header http.Header) bool {
	for _, name := range [...]string{"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type"} {
		if header[name] != nil {
			return true
		}
	}
	return false
}

// unquoteHeader returns what a header's value says: a double-quoted string (RFC 9110, section 5.6.4) without its quotes
// and backslashes, any other as it is. Quotes come before percent signs (HTTP binding, section 3.1.3.2).
func unquoteHeader(value string) string {
	inner, quoted := strings.CutPrefix(value, `"`)
	if !quoted {
		return value
	}
	text := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '\\' && i+1 < len(inner):
			i++
			text = append(text, inner[i])
		case c == '"' && i == len(inner)-1:
			return string(text)
		case c == '"': // more behind the string
			return value
		default:
			text = append(text, c)
		}
	}
	return value // it does not end
}

// binary reads a CloudEvent in binary mode: attributes in headers, data in the body.
func (p *parser) binary(header http.Header, body []byte, in *incoming) error {
	if size := len(body); size > p.maxEvent {
		return p.eventTooLarge(size)
	}
	ce := cloudEvent{contentType: header.Get("Content-Type")}
	for name, values := range header {
		attribute, found := strings.CutPrefix(name, attributePrefix)
		if !found {
			continue
		}
		attribute = strings.ToLower(attribute)
		if len(values) != 1 {
			return newProblem(malformed, "header ce-%s stands more than once", attribute)
		}
		value := unquoteHeader(values[0])
		if decoded, err := url.PathUnescape(value); err == nil { // else: the SDK for Go sends a percent sign as it is
			value = decoded
		}
		if !utf8.ValidString(value) {
			return newProblem(malformed, "header ce-%s must be UTF-8, percent-encoded where it is not ASCII", attribute)
		}
		if attribute == "time" {
			if err := in.setTimestamp([]byte(value), "ce-time"); err != nil {
				return err
			}
			continue
		}
		if attribute != "datacontenttype" { // which is the Content-Type in this mode
			ce.set(attribute, value)
		}
	}
	var err error
	if ce.data, err = wholeObject(body, "the CloudEvent's data"); err != nil {
		return err
	}
	return p.finishCloudEvent(in, &ce)
}
