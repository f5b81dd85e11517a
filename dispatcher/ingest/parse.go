package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clinikapi/eventflow/api/event"
)

// incoming is an event as its producer sent it. Its byte slices are parts of the request's body, unless they had to be
// decoded.
type incoming struct {
	id        string // "" if one is to be made
	eventType event.Type
	// timestamp is zero, and timestampText nil, if the producer sent none.
	timestamp     time.Time
	timestampText []byte
	data          []byte
	previous      []byte
	traceparent   string
}

// parser reads events from request bodies. It is reused, by one request at a time.
type parser struct {
	catalog  *event.Catalog
	maxEvent int
	// operational is set where those types are read as well: by tools, which publish nothing.
	operational bool
	document    document
	hash        hash.Hash
	sum         [sha256.Size]byte
	frame       [9]byte
	// unordered counts events that are to be delivered in order and do not say of which resource.
	unordered int
}

// plain appends to into what an application/json body holds: one event, or an array of them.
func (p *parser) plain(body []byte, into []incoming) (events []incoming, batch bool, err error) {
	if err := p.document.start(body); err != nil {
		return into, false, err
	}
	if p.document.decoder.PeekKind() == jsontext.KindBeginArray {
		events, err = p.array(into, p.one)
		return events, true, err
	}
	events, err = p.single(into, p.one)
	return events, false, err
}

// single reads a body that is one event.
func (p *parser) single(into []incoming, one func(*incoming) error) ([]incoming, error) {
	if size := len(bytes.TrimSpace(p.document.text)); size > p.maxEvent {
		return into, p.eventTooLarge(size)
	}
	into = append(into, incoming{})
	if err := one(&into[len(into)-1]); err != nil {
		return into, err
	}
	return into, p.document.end()
}

// array reads a body that is an array of events.
func (p *parser) array(into []incoming, one func(*incoming) error) ([]incoming, error) {
	err := p.document.elements(func(index int) error {
		if index == maxRequestEvents {
			return newProblem(tooLarge, "the request holds more than %d events; split it", maxRequestEvents)
		}
		start := len(p.document.text) - len(bytes.TrimLeft(p.document.text[p.document.decoder.InputOffset():], ", \t\r\n"))
		into = append(into, incoming{})
		err := one(&into[len(into)-1])
		if size := int(p.document.decoder.InputOffset()) - start; err == nil && size > p.maxEvent {
			err = p.eventTooLarge(size)
		}
		if err != nil {
			return asProblem(err).at(index)
		}
		return nil
	})
	if err != nil {
		return into, err
	}
	return into, p.document.end()
}

func (p *parser) eventTooLarge(size int) *problem {
	return newProblem(tooLarge, "the event is %d bytes long; at most %d are accepted", size, p.maxEvent)
}

// The keys of an event, as bits of those that were seen.
const (
	keyID = 1 << iota
	keyType
	keyTimestamp
	keyData
	keyPrevious
)

// eventKeys are the keys that an event may have.
const eventKeys = "id, type, timestamp, data, previous"

// one reads an event in the format of this API.
func (p *parser) one(in *incoming) error {
	var seen int
	var typeText []byte
	err := p.document.members("an event", func(key []byte) (err error) {
		var bit int
		switch string(key) {
		case "id":
			bit = keyID
		case "type":
			bit = keyType
		case "timestamp":
			bit = keyTimestamp
		case "data":
			bit = keyData
		case "previous":
			bit = keyPrevious
		default:
			return unknownKey(string(key))
		}
		if seen&bit != 0 {
			return newProblem(malformed, "key %s stands twice in the event", quoted(string(key)))
		}
		seen |= bit
		switch bit {
		case keyID:
			return p.readID(in)
		case keyType:
			typeText, _, err = p.document.string("type")
		case keyTimestamp:
			err = p.readTimestamp(in, "timestamp")
		case keyData:
			in.data, err = p.document.object("data")
		case keyPrevious:
			in.previous, err = p.document.optionalObject("previous")
		}
		return err
	})
	if err != nil {
		return err
	}
	if typeText == nil {
		return newProblem(malformed, `the event has no "type"; it needs "type" and "data"`)
	}
	if in.data == nil {
		return newProblem(malformed, `the event has no "data"; it needs "type" and "data"`)
	}
	in.eventType, err = p.lookup(typeText)
	return err
}

func unknownKey(key string) error {
	if key == "specversion" {
		return newProblem(malformed, `an event has no key "specversion"; send a CloudEvent with Content-Type %s, a batch with %s`, cloudEventType, cloudEventBatchType)
	}
	return newProblem(malformed, "an event has no key %s; its keys are %s", quoted(key), eventKeys)
}

func (p *parser) readID(in *incoming) error {
	text, present, err := p.document.string("id")
	if err != nil || !present {
		return err
	}
	in.id = string(text)
	if err := event.CheckID(in.id); err != nil {
		return newProblem(malformed, "the event's id is not valid: %s", err)
	}
	return nil
}

func (p *parser) readTimestamp(in *incoming, key string) error {
	text, present, err := p.document.string(key)
	if err != nil || !present {
		return err
	}
	return in.setTimestamp(text, key)
}

// setTimestamp takes an RFC 3339 time. The RFC lets "t" and "z" be lower case, package time does not.
func (in *incoming) setTimestamp(text []byte, key string) error {
	var t time.Time
	if err := t.UnmarshalText(text); err != nil {
		if err := t.UnmarshalText(bytes.ToUpper(text)); err != nil {
			return newProblem(malformed, "%s must be an RFC 3339 time, such as 2026-01-15T09:15:00.000Z", key)
		}
	}
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return newProblem(malformed, "%s must be between the years 1 and 9999, in UTC", key)
	}
	in.timestamp, in.timestampText = t, text
	return nil
}

// lookup returns the catalog's type.
func (p *parser) lookup(text []byte) (event.Type, error) {
	t, ok := p.catalog.Lookup(text)
	if ok {
		return t, nil
	}
	if i := slices.Index(event.OperationalTypes, event.Type(text)); i >= 0 && p.operational {
		return event.OperationalTypes[i], nil
	}
	if event.Type(text).IsOperational() {
		return "", newProblem(unknownType, "types of the family %s are Event Flow's own: it alone publishes them, and subscriptions get them by the pattern %[1]s.*", event.Operational)
	}
	return "", newProblem(unknownType, "type %s is not known; types are {resource}.{created|updated|deleted}, and the resources %s",
		quoted(string(text)), strings.Join(p.catalog.Resources(), ", "))
}

// digest is a hash of all that the producer sent for the event, and of what it left out. It costs one pass over data.
func (p *parser) digest(in *incoming) (digest [16]byte) {
	if p.hash == nil {
		p.hash = sha256.New()
	}
	p.hash.Reset()
	p.hashPart(true, nil, string(in.eventType))
	p.hashPart(in.timestampText != nil, in.timestampText, "")
	p.hashPart(true, in.data, "")
	p.hashPart(in.previous != nil, in.previous, "")
	copy(digest[:], p.hash.Sum(p.sum[:0]))
	return digest
}

// hashPart frames a part with its presence and its length, so that no two sequences of parts hash the same bytes. The
// part is either bytes or text.
func (p *parser) hashPart(present bool, part []byte, text string) {
	p.frame[0] = 0
	if present {
		p.frame[0] = 1
	}
	binary.BigEndian.PutUint64(p.frame[1:], uint64(len(part)+len(text)))
	p.hash.Write(p.frame[:])
	p.hash.Write(part)
	for text != "" { // through sum: a conversion would allocate
		n := copy(p.sum[:], text)
		p.hash.Write(p.sum[:n])
		text = text[n:]
	}
}
