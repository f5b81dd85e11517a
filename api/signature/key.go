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

	"github.com/clinikapi/eventflow/api/spelling"
)

// standardPrefix marks a key that is written as Standard Webhooks has it: base64 behind the prefix.
const standardPrefix = "whsec_"

// The bounds of a key, in bytes after decoding. Standard Webhooks 1.0 asks for 24 at least, and suggests 64 at most.
const (
	MinKeyBytes = 24
	MaxKeyBytes = 512
)

// whiteSpace is what no key begins or ends with.
const whiteSpace = " \t\r\n\v\f"

// Key is a signing key. It is immutable and safe for concurrent use, and never prints its bytes.
type Key struct {
	hashes sync.Pool // of hash.Hash, keyed: a reset costs less than a new one
}

// Keys are the keys that sign a delivery, the current one first.
type Keys []*Key

// ParseKey returns the key that a Secret holds as text. Behind "whsec_" it is base64 (standard alphabet, padded or not),
// as Standard Webhooks has it; any other text is the key's bytes as they are. It fails if the key has fewer than
// MinKeyBytes or more than MaxKeyBytes, if its base64 is broken, and for what is a slip of the pen rather than a key:
// white space around it, a byte order mark, a character that nobody sees, a prefix that is not spelled whsec_. The error says
// which, and does not show the key.
func ParseKey(text []byte) (*Key, error) {
	if err := checkSpelling(text); err != nil {
		return nil, err
	}
	raw := text
	if encoded, found := bytes.CutPrefix(text, []byte(standardPrefix)); found {
		decoded, err := decodeBase64(encoded)
		if err != nil {
			return nil, err
		}
		raw = decoded
	}
	switch {
	case len(raw) < MinKeyBytes:
		return nil, fmt.Errorf("the key is too short: %d bytes, want %d to %d; make one with openssl rand -base64 32, and put %s before it", len(raw), MinKeyBytes, MaxKeyBytes, standardPrefix)
	case len(raw) > MaxKeyBytes:
		return nil, fmt.Errorf("the key is too long: %d bytes, want %d to %d", len(raw), MinKeyBytes, MaxKeyBytes)
	}
	raw = bytes.Clone(raw)
	return &Key{hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }}}, nil
}

// checkSpelling refuses what would be taken for another key than its author meant.
func checkSpelling(text []byte) error {
	switch {
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return errors.New("the key begins with a byte order mark: save it without one")
	case len(bytes.Trim(text, whiteSpace)) != len(text):
		return errors.New("the key has white space around it, such as the newline that echo adds: write it without, as printf %s or echo -n do")
	case spelling.Odd(text) != "":
		return fmt.Errorf("the key has %s: write it without; to sign with bytes that are no text, put them in base64 behind %s", spelling.Odd(text), standardPrefix)
	case bytes.HasPrefix(text, []byte(version+standardPrefix)):
		return fmt.Errorf("the key begins with %s%s: %s belongs to signatures, a key begins with %s", version, standardPrefix, version, standardPrefix)
	case len(text) >= len(standardPrefix) && !bytes.HasPrefix(text, []byte(standardPrefix)) && bytes.EqualFold(text[:len(standardPrefix)], []byte(standardPrefix)):
		return fmt.Errorf("the key's prefix is not in lower case: write %s", standardPrefix)
	}
	return nil
}

// decodeBase64 reads the standard alphabet, padded fully or not at all.
func decodeBase64(encoded []byte) ([]byte, error) {
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(encoded, []byte("=")) {
		encoding = base64.StdEncoding
	}
	decoded, err := encoding.AppendDecode(nil, encoded)
	if err != nil || bytes.ContainsAny(encoded, "\r\n") { // the package skips line breaks
		// The error's own text would tell where, and with that something of the key.
		return nil, fmt.Errorf("the part behind %s is not base64 of the standard alphabet, padded or not", standardPrefix)
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
