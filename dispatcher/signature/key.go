package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// standardPrefix marks a key that is written as Standard Webhooks has it: base64 behind the prefix.
const standardPrefix = "whsec_"

// Key is a signing key. It is immutable and safe for concurrent use, and never prints its bytes.
type Key struct {
	hashes sync.Pool // of hash.Hash, keyed: a reset costs less than a new one
}

// Keys are the keys that sign a delivery, the current one first.
type Keys []*Key

// ParseKey returns the key that a Secret holds as text: behind "whsec_" it is base64 (standard alphabet, padding
// optional), else its raw bytes. It fails if the key is empty or its base64 is broken; the error does not show it.
func ParseKey(text []byte) (*Key, error) {
	raw := text
	if encoded, found := strings.CutPrefix(string(text), standardPrefix); found {
		decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err != nil {
			return nil, fmt.Errorf("the part behind %s is not base64", standardPrefix)
		}
		raw = decoded
	}
	if len(raw) == 0 {
		return nil, errors.New("the key is empty")
	}
	raw = append([]byte(nil), raw...)
	return &Key{hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }}}, nil
}

// sum appends the HMAC-SHA256 of the parts, one behind the other.
func (k *Key) sum(b []byte, parts ...[]byte) []byte {
	h := k.hashes.Get().(hash.Hash)
	h.Reset()
	for _, part := range parts {
		h.Write(part)
	}
	b = h.Sum(b)
	k.hashes.Put(h)
	return b
}

// String keeps the key out of logs.
func (k *Key) String() string { return "signing key" }
