package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/clinikapi/eventflow/api/spelling"
)

// The prefixes mark keys that are written as Standard Webhooks has them, in base64: a shared one, and the two halves of an
// ed25519 pair.
const (
	standardPrefix = "whsec_"
	privatePrefix  = "whsk_"
	publicPrefix   = "whpk_"
)

// The bounds of a key, in bytes after decoding. Standard Webhooks 1.0 asks for 24 at least, and suggests 64 at most.
const (
	MinKeyBytes = 24
	MaxKeyBytes = 512
)

// whiteSpace is what no key begins or ends with.
const whiteSpace = " \t\r\n\v\f"

// Key is a signing key, or the public half of one. It is immutable and safe for concurrent use, and never prints its bytes.
type Key struct {
	hashes sync.Pool // of hash.Hash, keyed: a reset costs less than a new one; of a shared key
	pair   *pair     // nil of a shared key
}

// pair is an ed25519 pair, or its public half alone.
type pair struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

// Keys are the keys that sign a delivery, the current one first.
type Keys []*Key

// ParseKey returns the key that a Secret holds as text. Behind "whsec_" it is base64 (standard alphabet, padded or not),
// as Standard Webhooks has it; behind "whsk_" it is an ed25519 private key in base64: the seed of 32 bytes (RFC 8032), or the
// seed and the public key. Any other text is the key's bytes as they are. It fails if a shared key has fewer than
// MinKeyBytes or more than MaxKeyBytes, if its base64 is broken, for a public key, which cannot sign, and for what is a slip
// of the pen rather than a key: white space around it, a byte order mark, a character that nobody sees, a prefix that is
// spelled otherwise. The error says which, and does not show the key.
func ParseKey(text []byte) (*Key, error) {
	if err := checkSpelling(text); err != nil {
		return nil, err
	}
	if encoded, found := bytes.CutPrefix(text, []byte(privatePrefix)); found {
		return parsePrivate(encoded)
	}
	if bytes.HasPrefix(text, []byte(publicPrefix)) {
		return nil, fmt.Errorf("the key is a public one, which cannot sign: the sender has the private key, which begins with %s", privatePrefix)
	}
	return parseShared(text)
}

// ParseVerificationKey returns the key that a receiver verifies with: a shared one as ParseKey has it, or the public half of
// an ed25519 pair, in base64 behind "whpk_". It fails as ParseKey does, and for a private key, which no receiver should have.
func ParseVerificationKey(text []byte) (*Key, error) {
	if err := checkSpelling(text); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte(privatePrefix)) {
		return nil, fmt.Errorf("the key is a private one, and the sender's alone: give the receiver the public key, which begins with %s", publicPrefix)
	}
	encoded, found := bytes.CutPrefix(text, []byte(publicPrefix))
	if !found {
		return parseShared(text)
	}
	public, err := decodeBase64(publicPrefix, encoded)
	if err != nil {
		return nil, err
	}
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("the public key has %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	return &Key{pair: &pair{public: public}}, nil
}

func parseShared(text []byte) (*Key, error) {
	raw := text
	if encoded, found := bytes.CutPrefix(text, []byte(standardPrefix)); found {
		decoded, err := decodeBase64(standardPrefix, encoded)
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

func parsePrivate(encoded []byte) (*Key, error) {
	raw, err := decodeBase64(privatePrefix, encoded)
	if err != nil {
		return nil, err
	}
	if len(raw) != ed25519.SeedSize && len(raw) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the private key has %d bytes, want the %d of an ed25519 seed, or %d with the public key behind it", len(raw), ed25519.SeedSize, ed25519.PrivateKeySize)
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && !bytes.Equal(raw, private) {
		return nil, errors.New("the public key behind the seed is not the seed's: make a new pair")
	}
	return &Key{pair: &pair{private, private.Public().(ed25519.PublicKey)}}, nil
}

// Public returns the public half of an ed25519 pair as receivers get it, in base64 behind "whpk_"; "" of a shared key, which
// has none.
func (k *Key) Public() string {
	if k.pair == nil {
		return ""
	}
	return publicPrefix + base64.StdEncoding.EncodeToString(k.pair.public)
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
	}
	for _, prefix := range []string{standardPrefix, privatePrefix, publicPrefix} {
		if len(text) >= len(prefix) && string(text[:len(prefix)]) != prefix && bytes.EqualFold(text[:len(prefix)], []byte(prefix)) {
			return fmt.Errorf("the key's prefix is not in lower case: write %s", prefix)
		}
	}
	return nil
}

// decodeBase64 reads the standard alphabet, padded fully or not at all.
func decodeBase64(prefix string, encoded []byte) ([]byte, error) {
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(encoded, []byte("=")) {
		encoding = base64.StdEncoding
	}
	decoded, err := encoding.AppendDecode(nil, encoded)
	if err != nil || bytes.ContainsAny(encoded, "\r\n") { // the package skips line breaks
		// The error's own text would tell where, and with that something of the key.
		return nil, fmt.Errorf("the part behind %s is not base64 of the standard alphabet, padded or not", prefix)
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
