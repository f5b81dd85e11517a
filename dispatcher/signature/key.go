package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
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
	if encoded, found := bytes.CutPrefix(text, []byte(standardPrefix)); found {
		decoded, err := decodeBase64(encoded)
		if err != nil {
			return nil, err
		}
		raw = decoded
	}
	if len(raw) == 0 {
		return nil, errors.New("the key is empty")
	}
	raw = bytes.Clone(raw)
	return &Key{hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }}}, nil
}

// decodeBase64 reads the standard alphabet, padded fully or not at all. Line breaks are skipped, as the receivers'
// libraries skip them: many a Secret ends with one.
func decodeBase64(encoded []byte) ([]byte, error) {
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(bytes.TrimRight(encoded, "\r\n"), []byte("=")) {
		encoding = base64.StdEncoding
	}
	decoded, err := encoding.AppendDecode(nil, encoded)
	if err != nil {
		// Its text would tell where, and with that something of the key.
		return nil, fmt.Errorf("the part behind %s is not base64", standardPrefix)
	}
	return decoded, nil
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

// GoString keeps the key out of %#v.
func (k *Key) GoString() string { return "signing key" }
