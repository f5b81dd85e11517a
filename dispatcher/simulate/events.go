package simulate

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
)

// An Event is an event as its producer publishes it.
type Event = ingest.PreviewEvent

// ReadEvents reads the body of a publish: an event, an array of events, or CloudEvents 1.0. The error says what to do, as a
// publisher would read it.
func ReadEvents(catalog *event.Catalog, body []byte) ([]Event, error) {
	preview, err := ingest.NewPreview(ingest.PreviewOptions{Catalog: catalog})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return preview.Read(contentTypeOf(body), bytes.Clone(body))
}

// contentTypeOf is the Content-Type with which a body would be published: an object with the key specversion is a CloudEvent.
func contentTypeOf(body []byte) string {
	decoder := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	batch := decoder.PeekKind() == jsontext.KindBeginArray
	if batch {
		if _, err := decoder.ReadToken(); err != nil {
			return "application/json"
		}
	}
	if !hasSpecVersion(decoder) {
		return "application/json"
	}
	if batch {
		return "application/cloudevents-batch+json"
	}
	return "application/cloudevents+json"
}

// hasSpecVersion reports whether the object that comes next has the key specversion.
func hasSpecVersion(decoder *jsontext.Decoder) bool {
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != jsontext.KindBeginObject {
		return false
	}
	for decoder.PeekKind() == jsontext.KindString {
		name, err := decoder.ReadToken()
		if err != nil {
			return false
		}
		if name.String() == "specversion" {
			return true
		}
		if decoder.SkipValue() != nil {
			return false
		}
	}
	return false
}
