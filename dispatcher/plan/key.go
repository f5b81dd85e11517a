package plan

import (
	"crypto/sha256"
	"fmt"
)

// MaxKey is the length of a key in bytes.
const MaxKey = 1024

// A Key is the hash of the text that a schedule's key results in. Stores keep it beside the subscription's identity. It
// does not show the text, which may be a patient's identifier. The zero Key is none: what has it is neither replaced nor
// cancelled by an event.
type Key [16]byte

// NewKey returns the key of a text; no key if the text is empty. A text of more than MaxKey bytes is an error.
func NewKey(text string) (Key, error) {
	var key Key
	if text == "" {
		return key, nil
	}
	if len(text) > MaxKey {
		return key, fmt.Errorf("a key is at most %d bytes long; this one has %d", MaxKey, len(text))
	}
	hash := sha256.New()
	hash.Write([]byte("eventflow/plan/key\x00"))
	hash.Write([]byte(text))
	copy(key[:], hash.Sum(nil))
	return key, nil
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k == Key{} }
