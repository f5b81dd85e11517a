package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// order is a hash of the resource that the event is about: its namespace, its resource type and data.resourceId, for which
// the id of a FHIR resource stands. It is 0 if data has neither as a string or a number; such an event is not ordered, and
// counted.
func (p *parser) order(namespace string, in *incoming) uint64 {
	id := p.resourceID(in.data)
	if len(id) == 0 {
		p.unordered++
		return 0
	}
	h := sha256.New()
	for _, part := range [...]string{namespace, in.eventType.Resource(), string(id)} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return binary.BigEndian.Uint64(h.Sum(nil)) | 1 // never 0
}

// resourceID returns data.resourceId, or data.id where data has a resourceType, as FHIR's resources do, and no resourceId.
func (p *parser) resourceID(data []byte) []byte {
	p.document.reset(data)
	var resourceID, id []byte
	hasType, hasID := false, false
	err := p.document.members("data", func(key []byte) error {
		value, err := p.document.decoder.ReadValue()
		if err != nil {
			return err
		}
		switch string(key) {
		case "resourceId":
			resourceID, hasID = scalar(value), true
		case "id":
			id = scalar(value)
		case "resourceType":
			hasType = true
		}
		return nil
	})
	switch {
	case err != nil: // it was parsed once already, so there is none
		return nil
	case hasType && !hasID:
		return id
	}
	return resourceID
}

// scalar returns what a string or a number says, nil for any other value.
func scalar(value jsontext.Value) []byte {
	switch value.Kind() {
	case jsontext.KindString:
		return append([]byte(nil), looseUnquote(value)...)
	case jsontext.KindNumber:
		return append([]byte(nil), value...)
	default:
		return nil
	}
}

// takeUnordered returns how many events could not be ordered since it was called last.
func (p *parser) takeUnordered() int {
	n := p.unordered
	p.unordered = 0
	return n
}

// unorderedInterval is how often it is logged, at most, that events could not be ordered.
const unorderedInterval = time.Minute

// unordered is when that was logged last.
type unordered struct {
	mu   sync.Mutex
	last time.Time
}

// due reports whether it is to be logged again.
func (u *unordered) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.last.IsZero() && now.Sub(u.last) < unorderedInterval {
		return false
	}
	u.last = now
	return true
}

// noteUnordered counts events of the namespace that a subscription wants in order and that do not say of which resource.
func (h *Handler) noteUnordered(n int, namespace string) {
	if n == 0 {
		return
	}
	h.metrics.unordered.Add(float64(n))
	if h.unordered.due(time.Now()) {
		h.options.Logger.Info("Events are delivered out of order although a subscription asks for ByResource: their data has no resourceId, nor the id of a FHIR resource",
			"namespace", strings.Clone(namespace), "events", n)
	}
}
