package envelope

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// KeyRing holds the platform's key-encryption keys: the current one wraps, and every one unwraps. It is immutable.
type KeyRing struct {
	current string
	keys    map[string]*[keyLength]byte // pointers, so that fmt does not show them
	random  io.Reader
}

// CurrentFile is the file of a keys' folder that holds the id of the current key. Every other file is a key, and its name
// is the key's id.
const CurrentFile = "current"

// ErrNoKey says that what was wrapped needs a key-encryption key that is not in the ring.
var ErrNoKey = errors.New("the key-encryption key is not there")

// ErrNoKeys says that the folder has no usable keys.
var ErrNoKeys = errors.New("no key-encryption keys")

// keyID is what a key's id may be: a name of a Secret's data.
var keyID = regexp.MustCompile(`^[A-Za-z0-9][-._A-Za-z0-9]{0,62}$`)

// NewKeyRing returns a ring of the keys, of which current is one; random is crypto/rand's if nil. A key is 32 bytes, or
// their base64 (RFC 4648, section 4).
func NewKeyRing(current string, keys map[string][]byte, random io.Reader) (*KeyRing, error) {
	r := &KeyRing{current: current, keys: map[string]*[keyLength]byte{}, random: orRandom(random)}
	for id, key := range keys {
		if !keyID.MatchString(id) {
			return nil, fmt.Errorf("%w: a key's name is 1 to 63 of letters, digits, '-', '.' and '_'", ErrNoKeys)
		}
		raw, err := rawKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", id, err)
		}
		r.keys[id] = &raw
	}
	if _, ok := r.keys[current]; !ok {
		return nil, fmt.Errorf("%w: the current key, %q, is not among them", ErrNoKeys, current)
	}
	return r, nil
}

// rawKey never shows what it was given.
func rawKey(text []byte) (raw [keyLength]byte, err error) {
	if len(text) == keyLength {
		return [keyLength]byte(text), nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != keyLength {
		return raw, fmt.Errorf("%w: want 32 bytes, or their base64 as openssl rand -base64 32 writes it", ErrNoKeys)
	}
	return [keyLength]byte(b), nil
}

// maxKeyFile bounds a key's file in bytes, maxKeys the keys of a folder.
const maxKeyFile, maxKeys = 256, 64

// LoadKeyRing reads the keys of a folder, which may be a mounted Secret: hidden files are passed over.
func LoadKeyRing(dir string) (*KeyRing, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the encryption keys: %w", err)
	}
	keys := map[string][]byte{}
	var current string
	for _, file := range files {
		name := file.Name()
		if strings.HasPrefix(name, ".") || file.IsDir() {
			continue
		}
		b, err := readBounded(filepath.Join(dir, name), maxKeyFile)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the encryption keys: %w", err)
		case name == CurrentFile:
			current = strings.TrimSpace(string(b))
		case len(keys) == maxKeys:
			return nil, fmt.Errorf("read the encryption keys in %s: more than %d", dir, maxKeys)
		default:
			keys[name] = b
		}
	}
	if current == "" {
		return nil, fmt.Errorf("%w in %s: its file %s names the key to use, and the file of that name holds 32 random bytes", ErrNoKeys, dir, CurrentFile)
	}
	return NewKeyRing(current, keys, nil)
}

func readBounded(path string, limit int64) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Current is the id of the key that wraps.
func (r *KeyRing) Current() string { return r.current }

// wrapVersion is the first byte of what a ring wrapped or sealed.
const wrapVersion = 1

// The labels of what a key-encryption key does.
const (
	labelSeed = "eventflow/seed/1"
	labelFile = "eventflow/file/1"
)

// Wrap returns a tenant's seed, encrypted by the current key. mark is a byte that comes back with it.
//
// Each call derives a key of its own from a random salt, as Seal does: however many seeds there are, none is wrapped with
// a nonce that another had.
func (r *KeyRing) Wrap(tenant string, seed Seed, mark byte) ([]byte, error) {
	return r.seal(labelSeed, tenant, append(bytes.Clone(seed.secret[:]), mark))
}

// Unwrap returns what Wrap was given, and the id of the key that wrapped it. The errors are ErrDamaged, ErrNewer and ErrNoKey.
func (r *KeyRing) Unwrap(tenant string, wrapped []byte) (seed Seed, mark byte, key string, err error) {
	b, key, err := r.open(labelSeed, tenant, wrapped)
	if err != nil {
		return Seed{}, 0, key, err
	}
	if len(b) != keyLength+1 {
		return Seed{}, 0, key, ErrDamaged
	}
	return Seed{(*[keyLength]byte)(b)}, b[keyLength], key, nil
}

// SealFile encrypts a file's content for its name, by the current key.
func (r *KeyRing) SealFile(name string, content []byte) ([]byte, error) {
	return r.seal(labelFile, name, content)
}

// OpenFile returns what SealFile was given for the same name.
func (r *KeyRing) OpenFile(name string, sealed []byte) ([]byte, error) {
	b, _, err := r.open(labelFile, name, sealed)
	return b, err
}

// IsSealedFile reports whether the content begins as what SealFile returns; JSON, gzip and hexadecimal text do not.
func IsSealedFile(content []byte) bool { return len(content) > 0 && content[0] == wrapVersion }

// IsCurrent reports whether a file's content says that the current key sealed it.
func (r *KeyRing) IsCurrent(sealed []byte) bool {
	header := append([]byte{wrapVersion, byte(len(r.current))}, r.current...)
	return bytes.HasPrefix(sealed, header)
}

// cipherOf returns the cipher of a key, a use and a salt, and the additional data of what has the header.
func (r *KeyRing) cipherOf(id, label, name string, header, salt []byte) (cipher.AEAD, []byte, error) {
	key := r.keys[id]
	derived, err := hkdf.Key(sha256.New, key[:], salt, label, keyLength)
	if err != nil {
		return nil, nil, err
	}
	gcm, err := newGCM(derived)
	additional := append([]byte(nil), header...)
	additional = binary.BigEndian.AppendUint32(additional, uint32(len(name)))
	return gcm, append(additional, name...), err
}

// seal: version 1 | length of the key's id 1 | key's id | salt 32 | ciphertext | tag 16.
func (r *KeyRing) seal(label, name string, plain []byte) ([]byte, error) {
	header := append([]byte{wrapVersion, byte(len(r.current))}, r.current...)
	salt := make([]byte, saltLength)
	if _, err := io.ReadFull(r.random, salt); err != nil {
		return nil, fmt.Errorf("encrypt with key %s: %w", r.current, err)
	}
	gcm, additional, err := r.cipherOf(r.current, label, name, header, salt)
	if err != nil {
		return nil, fmt.Errorf("encrypt with key %s: %w", r.current, err)
	}
	return gcm.Seal(append(header, salt...), zeroNonce[:], plain, additional), nil //nolint:gosec // G407: the key seals this alone
}

func (r *KeyRing) open(label, name string, sealed []byte) (plain []byte, id string, err error) {
	if len(sealed) < 2 {
		return nil, "", ErrDamaged
	}
	if sealed[0] != wrapVersion {
		return nil, "", fmt.Errorf("%w: version %d", ErrNewer, sealed[0])
	}
	end := 2 + int(sealed[1])
	if len(sealed) < end+saltLength+tagLength {
		return nil, "", ErrDamaged
	}
	header, salt := sealed[:end], sealed[end:end+saltLength]
	id = string(header[2:])
	if _, ok := r.keys[id]; !ok {
		if !keyID.MatchString(id) {
			return nil, "", ErrDamaged
		}
		return nil, id, fmt.Errorf("%w: %q", ErrNoKey, id)
	}
	gcm, additional, err := r.cipherOf(id, label, name, header, salt)
	if err != nil {
		return nil, id, err
	}
	if plain, err = gcm.Open(nil, zeroNonce[:], sealed[end+saltLength:], additional); err != nil {
		return nil, id, ErrDamaged
	}
	return plain, id, nil
}
