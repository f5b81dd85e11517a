package ingest

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/go-json-experiment/json/jsontext"
)

// order is a hash of the resource that the event is about: its namespace, its resource type and data.resourceId. It is 0
// if data has no resourceId that is a string or a number; such an event is not ordered.
func (p *parser) order(namespace string, in *incoming) uint64 {
	p.document.reset(in.data)
	var id []byte
	err := p.document.members("data", func(key []byte) error {
		wanted := string(key) == "resourceId"
		value, err := p.document.decoder.ReadValue()
		if err != nil || !wanted {
			return err
		}
		switch value.Kind() {
		case jsontext.KindString:
			id, err = unquote(value)
			id = append([]byte(nil), id...)
		case jsontext.KindNumber:
			id = append([]byte(nil), value...)
		default:
			id = nil
		}
		return err
	})
	if err != nil || len(id) == 0 { // it was parsed once already, so there is no error
		return 0
	}
	h := sha256.New()
	for _, part := range [...]string{namespace, in.eventType.Resource(), string(id)} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return binary.BigEndian.Uint64(h.Sum(nil)) | 1 // never 0
}
