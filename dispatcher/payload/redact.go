package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// node is a place within data that leads to something that is removed.
type node struct {
	remove  bool
	members map[string]*node // by key
	each    *node            // of the elements of a list
}

var errPath = errors.New("a path is keys joined by dots, with [*] for each element of a list, such as contacts[*].phone")

// parsePaths returns the places that paths lead to; nil if there is none.
func parsePaths(paths []string) (*node, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	root := &node{}
	for _, path := range paths {
		at := root
		for _, part := range strings.Split(path, ".") {
			key := strings.TrimRight(part, "[*]")
			lists := len(part) - len(key)
			if key == "" || strings.ContainsAny(key, `[]\`) || part[len(key):] != strings.Repeat("[*]", lists/3) {
				return nil, errPath
			}
			at = at.member(key)
			for range lists / 3 {
				if at.each == nil {
					at.each = &node{}
				}
				at = at.each
			}
		}
		at.remove = true
	}
	return root, nil
}

func (n *node) member(key string) *node {
	if n.members == nil {
		n.members = map[string]*node{}
	}
	if n.members[key] == nil {
		n.members[key] = &node{}
	}
	return n.members[key]
}

// redacted returns data, a JSON object, without what the paths name. What stays keeps its bytes. A key that stands
// several times is removed each time. A value on the way that is of another kind than its path says, and not null, is
// removed as a whole: a list where the path has a key, an object where it has [*], a text where it goes on.
func (n *node) redacted(data []byte) ([]byte, error) {
	if n == nil {
		return data, nil
	}
	r := redaction{data: data, out: make([]byte, 0, len(data)), decoder: jsontext.NewDecoder(bytes.NewBuffer(data),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
	if r.decoder.PeekKind() != jsontext.KindBeginObject {
		return nil, errors.New("data is no JSON object")
	}
	r.out = append(r.out, data[:r.start()]...)
	if _, err := r.value(n); err != nil {
		return nil, fmt.Errorf("data cannot be read from byte %d on", r.decoder.InputOffset()) // the decoder's error quotes it
	}
	r.out = append(r.out, data[r.at():]...)
	if _, err := r.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object of data")
	}
	return r.out, nil
}

type redaction struct {
	data, out []byte
	decoder   *jsontext.Decoder
}

// at is where the last token ended.
func (r *redaction) at() int { return int(r.decoder.InputOffset()) }

// start is where the next value starts: behind white space, a colon and a comma.
func (r *redaction) start() int {
	at := r.at()
	for at < len(r.data) && strings.IndexByte(" \t\r\n:,", r.data[at]) >= 0 {
		at++
	}
	return at
}

// segmentEnd is where the comma or bracket stands that ends a member or an element.
func (r *redaction) segmentEnd() int {
	at := r.at()
	for at < len(r.data) && strings.IndexByte(" \t\r\n", r.data[at]) >= 0 {
		at++
	}
	return at
}

// value appends the next value without what n names. It is removed if it is not kept.
func (r *redaction) value(n *node) (kept bool, err error) {
	from, kind := r.start(), r.decoder.PeekKind()
	switch {
	case n != nil && n.remove:
		return false, r.decoder.SkipValue()
	case n == nil || kind == jsontext.KindNull:
		if err = r.decoder.SkipValue(); err == nil {
			r.out = append(r.out, r.data[from:r.at()]...)
		}
		return true, err
	case kind == jsontext.KindBeginObject && n.members != nil:
		return true, r.list(n, true)
	case kind == jsontext.KindBeginArray && n.each != nil:
		return true, r.list(n, false)
	}
	return false, r.decoder.SkipValue() // of another kind than the path says
}

// list appends an object or a list without what n names.
func (r *redaction) list(n *node, object bool) error {
	if _, err := r.decoder.ReadToken(); err != nil {
		return err
	}
	end := jsontext.KindEndArray
	if object {
		end = jsontext.KindEndObject
	}
	r.out = append(r.out, r.data[r.at()-1])
	from, first := r.at(), true // of the segment: what stands between two separators
	if r.decoder.PeekKind() == end {
		r.out = append(r.out, r.data[from:r.segmentEnd()]...)
	}
	for r.decoder.PeekKind() != end {
		mark := len(r.out)
		if !first {
			r.out = append(r.out, ',')
		}
		next := n.each
		if object {
			name, err := r.decoder.ReadToken()
			if err != nil {
				return err
			}
			next = n.members[name.String()]
		}
		r.out = append(r.out, r.data[from:r.start()]...)
		kept, err := r.value(next)
		if err != nil {
			return err
		}
		to := r.segmentEnd()
		if kept {
			r.out = append(r.out, r.data[r.at():to]...)
			first = false
		} else {
			r.out = r.out[:mark]
		}
		if from = to; to < len(r.data) && r.data[to] == ',' {
			from = to + 1
		}
	}
	if _, err := r.decoder.ReadToken(); err != nil {
		return err
	}
	r.out = append(r.out, r.data[r.at()-1])
	return nil
}
