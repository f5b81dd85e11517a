package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// envelope is an event's stored body, taken apart: begin, data and end are the whole of it.
type envelope struct {
	begin, data, end []byte
	timestamp        time.Time
}

var errEnvelope = errors.New("the stored event cannot be read")

// open takes a stored body apart. It copies nothing.
func open(body []byte) (envelope, error) {
	var e envelope
	decoder := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != jsontext.KindBeginObject {
		return e, errEnvelope
	}
	for decoder.PeekKind() != jsontext.KindEndObject {
		name, err := decoder.ReadToken()
		if err != nil {
			return e, errEnvelope
		}
		key := name.String()
		value, err := decoder.ReadValue()
		if err != nil {
			return e, errEnvelope
		}
		end := int(decoder.InputOffset())
		switch key {
		case "data":
			if e.data != nil {
				return e, errEnvelope // which of the two is sent would be the reader's choice
			}
			e.begin, e.data, e.end = body[:end-len(value)], body[end-len(value):end:end], body[end:]
		case "timestamp":
			if e.timestamp, err = time.Parse(time.RFC3339Nano, strings.Trim(string(value), `"`)); err != nil {
				return e, errEnvelope
			}
		}
	}
	if _, err := decoder.ReadToken(); err != nil || e.data == nil || e.timestamp.IsZero() {
		return e, errEnvelope
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return e, errEnvelope
	}
	return e, nil
}

// with returns the body with other data.
func (e *envelope) with(data []byte) []byte {
	return bytes.Join([][]byte{e.begin, data, e.end}, nil)
}

// standard is the body in the product's own envelope.
func (e *envelope) standard(data []byte, thin bool) ([]byte, error) {
	body := e.with(data)
	if !thin {
		return body, nil
	}
	body, err := event.ThinBody(body)
	if err != nil {
		return nil, errEnvelope // the decoder's error may quote it
	}
	return body, nil
}

// attribute is one of a CloudEvent (CloudEvents 1.0.2, section 3).
type attribute struct{ name, value string }

// attributes are those of the event. Its source is its subscription's namespace: ids of events are unique in it.
func (e *envelope) attributes(ev *delivery.Event, namespace string, data []byte) []attribute {
	all := []attribute{
		{"specversion", "1.0"}, {"id", ev.ID}, {"source", "/namespaces/" + namespace}, {"type", string(ev.Type)},
		{"time", e.timestamp.UTC().Format(time.RFC3339Nano)},
	}
	if subject := subjectOf(data); subject != "" {
		all = append(all, attribute{"subject", subject})
	}
	return all
}

// subjectOf is the id of the resource that data is about: resourceId, or the id of a FHIR resource; empty if it has none.
func subjectOf(data []byte) string {
	var resourceID, id string
	fhir := false
	decoder := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := decoder.ReadToken(); err != nil {
		return ""
	}
	for decoder.PeekKind() == jsontext.KindString {
		name, err := decoder.ReadToken()
		if err != nil {
			return ""
		}
		key := name.String()
		kind := decoder.PeekKind()
		if kind != jsontext.KindString && kind != jsontext.KindNumber {
			if decoder.SkipValue() != nil {
				return ""
			}
			continue
		}
		value, err := decoder.ReadToken()
		if err != nil {
			return ""
		}
		switch key {
		case "resourceId":
			resourceID = value.String()
		case "resourceType":
			fhir = true
		case "id":
			id = value.String()
		}
	}
	if resourceID == "" && fhir {
		return id
	}
	return resourceID
}

// structured is the event as one JSON document (CloudEvents JSON format 1.0.2, section 3).
func structured(attributes []attribute, data []byte) []byte {
	b := []byte{'{'}
	for _, a := range attributes {
		b = appendQuoted(appendQuoted(b, a.name, ':'), a.value, ',')
	}
	b = append(b, `"datacontenttype":"application/json","data":`...)
	return append(append(b, data...), '}')
}

func appendQuoted(b []byte, text string, then byte) []byte {
	b, _ = jsontext.AppendQuote(b, text) // its error is invalid UTF-8, which it has replaced
	return append(b, then)
}

// binary are the attributes as headers (CloudEvents HTTP protocol binding 1.0.2, section 3.1.3): what is not printable
// ASCII, and space, quote and percent, is escaped.
func binary(attributes []attribute) []egress.Field {
	fields := make([]egress.Field, 0, len(attributes))
	for _, a := range attributes {
		var value strings.Builder
		for i := range len(a.value) {
			if c := a.value[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
				fmt.Fprintf(&value, "%%%02X", c)
			} else {
				value.WriteByte(c)
			}
		}
		fields = append(fields, egress.Field{Name: "ce-" + a.name, Value: value.String()})
	}
	return fields
}

// thin is what a delivery in thin mode keeps of data.
func (e *envelope) thin(data []byte) ([]byte, error) {
	body, err := e.standard(data, true)
	if err != nil {
		return nil, err
	}
	opened, err := open(body)
	return opened.data, err
}
