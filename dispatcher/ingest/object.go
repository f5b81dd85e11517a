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

// decoderOptions leave what is in data to its producer, for it is delivered byte for byte, as far as it is JSON by
// RFC 8259: names may stand twice (section 4), and a surrogate may be escaped alone, such as "\ud83d" (section 8.2). I-JSON
// (RFC 7493) refuses both. The envelope's own keys and texts are checked by their readers, and the bytes for being UTF-8
// (section 8.1) by checkUTF8.
var decoderOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

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

// start is reset for text from outside: it returns an error unless that is UTF-8, which the decoder does not check.
func (d *document) start(text []byte) error {
	d.reset(text)
	return d.checkUTF8()
}

// checkUTF8 returns an error unless the text is UTF-8.
func (d *document) checkUTF8() error {
	if utf8.Valid(d.text) {
		return nil
	}
	return newProblem(malformed, "the body is not valid UTF-8")
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
		if err := each(looseUnquote(name)); err != nil {
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

// string reads a string, and reports whether there was one: null counts as absent.
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
			return nil, false, newProblem(malformed, `%s must be a string of Unicode characters, without a surrogate alone such as "\ud83d"`, key)
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
	if err := d.checkUTF8(); err != nil {
		return err
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
	if tooDeep(d.text[:min(offset, int64(len(d.text)))]) { // the decoder has a bound, too
		return newProblem(malformed, "the body nests deeper than %d levels", maxDepth)
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

// looseUnquote is unquote with U+FFFD for each surrogate that is escaped alone.
func looseUnquote(quoted jsontext.Value) []byte {
	text, _ := unquote(quoted) // the error is about those, for it is valid otherwise
	return text
}

// tooDeep reports whether a valid JSON value nests deeper than maxDepth.
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
