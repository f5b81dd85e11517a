package ingest

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deeply data may nest. It stays below what receivers' parsers take by default (PHP: 512, envelope
// included) and far above what clinical resources need.
const maxDepth = 500

// decoderOptions leave duplicate names within data to its producer, for it is delivered byte for byte; duplicates of
// the envelope's own keys are found by who reads them.
var decoderOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true)}

// document reads one JSON document from memory. Its errors say where it is malformed and show nothing of it.
type document struct {
	decoder jsontext.Decoder
	source  bytes.Buffer
	text    []byte
}

// reset makes d read text, which must not change until d is reset again.
func (d *document) reset(text []byte) {
	d.text = text
	d.source = *bytes.NewBuffer(text)
	d.decoder.Reset(&d.source, decoderOptions...)
}

// members calls each for every member of the object that comes next. each gets the unquoted key, valid during the
// call, and has to read the value.
func (d *document) members(what string, each func(key []byte) error) error {
	if d.decoder.PeekKind() != jsontext.KindBeginObject {
		if _, err := d.decoder.ReadValue(); err != nil {
			return d.malformed(err)
		}
		return newProblem(malformed, "%s must be a JSON object", what)
	}
	if _, err := d.decoder.ReadToken(); err != nil {
		return d.malformed(err)
	}
	for d.decoder.PeekKind() != jsontext.KindEndObject {
		name, err := d.decoder.ReadValue()
		if err != nil {
			return d.malformed(err)
		}
		key, err := unquote(name)
		if err != nil {
			return d.malformed(err)
		}
		if err := each(key); err != nil {
			return err
		}
	}
	if _, err := d.decoder.ReadToken(); err != nil {
		return d.malformed(err)
	}
	return nil
}

// elements calls each for every element of the array that comes next; each has to read it.
func (d *document) elements(each func(index int) error) error {
	if _, err := d.decoder.ReadToken(); err != nil {
		return d.malformed(err)
	}
	for index := 0; d.decoder.PeekKind() != jsontext.KindEndArray; index++ {
		if err := each(index); err != nil {
			return err
		}
	}
	if _, err := d.decoder.ReadToken(); err != nil {
		return d.malformed(err)
	}
	return nil
}

// end returns an error unless the document ends here.
func (d *document) end() error {
	_, err := d.decoder.ReadToken()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return newProblem(malformed, "there are more bytes behind the JSON document, from byte %d on; send one document", d.decoder.InputOffset())
}

// string reads a string, and tells whether there was one: null counts as absent.
func (d *document) string(key string) (text []byte, present bool, err error) {
	value, err := d.decoder.ReadValue()
	if err != nil {
		return nil, false, d.malformed(err)
	}
	switch value.Kind() {
	case jsontext.KindNull:
		return nil, false, nil
	case jsontext.KindString:
		text, err := unquote(value)
		if err != nil {
			return nil, false, d.malformed(err)
		}
		return text, true, nil
	default:
		return nil, false, newProblem(malformed, "%s must be a string", key)
	}
}

// object reads an object as it stands, byte for byte.
func (d *document) object(key string) ([]byte, error) {
	value, err := d.decoder.ReadValue()
	if err != nil {
		return nil, d.malformed(err)
	}
	if value.Kind() != jsontext.KindBeginObject {
		return nil, newProblem(malformed, "%s must be a JSON object", key)
	}
	if tooDeep(value) {
		return nil, newProblem(malformed, "%s nests deeper than %d levels", key, maxDepth)
	}
	return value, nil
}

// optionalObject is like object, and returns nil for null.
func (d *document) optionalObject(key string) ([]byte, error) {
	if d.decoder.PeekKind() == jsontext.KindNull {
		if _, err := d.decoder.ReadToken(); err != nil {
			return nil, d.malformed(err)
		}
		return nil, nil
	}
	return d.object(key)
}

// malformed says where the document is broken. The decoder's own message is left out: it may name keys within data.
func (d *document) malformed(err error) error {
	if !utf8.Valid(d.text) {
		return newProblem(malformed, "the body is not valid UTF-8")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		if len(bytes.TrimSpace(d.text)) == 0 {
			return newProblem(malformed, "the body is empty; send an event, an array of events, or CloudEvents")
		}
		return newProblem(malformed, "the body is not valid JSON: it ends in the middle, at byte %d", len(d.text))
	}
	offset := d.decoder.InputOffset()
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = syntactic.ByteOffset
	}
	return newProblem(malformed, "the body is not valid JSON: syntax error at byte %d", offset)
}

// unquote returns what a JSON string says; where nothing is escaped it is part of the string.
func unquote(quoted jsontext.Value) ([]byte, error) {
	if len(quoted) >= 2 && bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1], nil
	}
	return jsontext.AppendUnquote(nil, quoted)
}

// tooDeep tells whether a valid JSON value nests deeper than maxDepth.
func tooDeep(value []byte) bool {
	if bytes.Count(value, []byte{'{'})+bytes.Count(value, []byte{'['}) <= maxDepth {
		return false // true of nearly all, and much faster than the walk
	}
	depth, inString := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
