package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
)

const (
	recordVersion = 1
	suiteAES      = 1 // HKDF-SHA256, AES-256-GCM
	seedIDLength  = 4
	headerLength  = 2 + seedIDLength
	saltLength    = 32
	tagLength     = 16
	keyLength     = 32
)

// Overhead is by how many bytes a sealed record is longer than what it holds.
const Overhead = headerLength + saltLength + tagLength

// The labels keep keys of different uses apart; HKDF takes them as info (RFC 5869, section 3.2).
const (
	labelEvent  = "eventflow/event/1"
	labelIDMAC  = "eventflow/id/mac/1"
	labelID     = "eventflow/id/1"
	labelLookup = "eventflow/lookup/1"
	labelSeedID = "eventflow/seed/id/1"
)

// The errors of opening. None says anything of what was sealed.
var (
	// ErrDamaged: the bytes are not what was sealed with this key for this context.
	ErrDamaged = errors.New("an encrypted record cannot be opened: it was changed, or belongs elsewhere")
	// ErrNewer: a newer program sealed it.
	ErrNewer = errors.New("an encrypted record was made by a newer program")
	// ErrOtherSeed: it was sealed with another seed than this, such as one that was deleted.
	ErrOtherSeed = errors.New("an encrypted record was made with a key that is not there any more")
)

// Seed is the secret of one tenant, from which its keys follow. It is never shown, also not by fmt.
//
// The bytes are behind a pointer: fmt does not follow one that is within another value.
type Seed struct{ secret *[keyLength]byte }

// NewSeed returns a fresh seed of the reader's bytes; crypto/rand's if it is nil.
func NewSeed(random io.Reader) (Seed, error) {
	s := Seed{secret: new([keyLength]byte)}
	if _, err := io.ReadFull(orRandom(random), s.secret[:]); err != nil {
		return Seed{}, fmt.Errorf("make a seed: %w", err)
	}
	return s, nil
}

// Equal reports, in constant time, whether both are the same seed.
func (s Seed) Equal(t Seed) bool {
	return s.secret != nil && t.secret != nil && hmac.Equal(s.secret[:], t.secret[:])
}

// String shows nothing of the seed.
func (Seed) String() string { return "[seed]" }

// GoString is String.
func (Seed) GoString() string { return "[seed]" }

func orRandom(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}

// Context is what a record belongs to. It is authenticated, and not part of the record.
type Context struct {
	Tenant, Event, Type, Store string
}

// appendTo appends each part after its length, so that no two contexts are the same bytes.
func (c *Context) appendTo(b []byte) []byte {
	for _, part := range [...]string{c.Tenant, c.Event, c.Type, c.Store} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// Sealer seals and opens the records of one seed in one store. It is safe for concurrent use, and takes no lock.
type Sealer struct {
	tenant, store string
	header        [headerLength]byte
	random        io.Reader
	ids           cipher.Block
	// context is that of what belongs to no event.
	context []byte
	// The pools hold *mac, keyed with the seed, for ids, and for what is looked up.
	seedMACs, idMACs, lookupMACs sync.Pool
}

// Bytes is what a Sealer holds in memory, at most, with the hashes that are in use. Tenant and store count beside it.
const Bytes = 4 << 10

// New returns the sealer of a tenant's seed for a store. random is crypto/rand's if nil; it must be safe for concurrent use.
func New(seed Seed, tenant, store string, random io.Reader) (*Sealer, error) {
	if seed.secret == nil {
		return nil, errors.New("derive a key: there is no seed")
	}
	s := &Sealer{tenant: tenant, store: store, random: orRandom(random)}
	var derived [4][]byte
	for i, label := range [...]string{labelSeedID, labelID, labelIDMAC, labelLookup} {
		key, err := hkdf.Expand(sha256.New, seed.secret[:], label, keyLength)
		if err != nil {
			return nil, fmt.Errorf("derive a key: %w", err)
		}
		derived[i] = key
	}
	s.header = [headerLength]byte{recordVersion, suiteAES}
	copy(s.header[2:], derived[0])
	var err error
	if s.ids, err = aes.NewCipher(derived[1]); err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	none := Context{Tenant: tenant, Store: store}
	s.context = none.appendTo(nil)
	s.seedMACs.New = func() any { return newMAC(seed.secret[:]) }
	s.idMACs.New = func() any { return newMAC(derived[2]) }
	s.lookupMACs.New = func() any { return newMAC(derived[3]) }
	return s, nil
}

// mac is an HMAC with room for what it reads and for its sum. One at a time uses it.
type mac struct {
	hash.Hash
	sum  [sha256.Size]byte
	text []byte
}

func newMAC(key []byte) *mac { return &mac{Hash: hmac.New(sha256.New, key)} }

// of returns the sum of m.text. It is overwritten by the next.
func (m *mac) of() []byte {
	m.Reset()
	m.Write(m.text)
	return m.Sum(m.sum[:0])
}

// aead returns the cipher of the record that has the salt, and its additional data, in m's room. The key is HKDF-Expand of the
// seed with the label and the salt as info, which is one HMAC for a key of 32 bytes. A seed is uniformly random, so there
// is nothing to extract (RFC 5869, section 3.3). It is written out because crypto/hkdf keys its HMAC anew for each key.
func (s *Sealer) aead(m *mac, salt []byte, event, kind string) (cipher.AEAD, []byte, error) {
	m.text = append(append(append(m.text[:0], labelEvent...), salt...), 1)
	gcm, err := newGCM(m.of())
	if err != nil {
		return nil, nil, err
	}
	context := Context{Tenant: s.tenant, Event: event, Type: kind, Store: s.store}
	m.text = context.appendTo(append(m.text[:0], s.header[:]...))
	return gcm, m.text, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// zeroNonce is that of keys that seal one record.
var zeroNonce [12]byte

// Seal appends the sealed plain, which is Overhead longer, for an event of the given id and type. It fails only if there is no
// randomness. plain must not overlap dst's spare room, unless it begins where the ciphertext will: at len(dst)+Prefix.
func (s *Sealer) Seal(dst []byte, event, kind string, plain []byte) ([]byte, error) {
	from := len(dst)
	dst = slices.Grow(dst, Overhead+len(plain))[:from+Prefix]
	copy(dst[from:], s.header[:])
	salt := dst[from+headerLength:]
	if _, err := io.ReadFull(s.random, salt); err != nil {
		return dst[:from], fmt.Errorf("seal a record: %w", err)
	}
	m := s.seedMACs.Get().(*mac)
	defer s.seedMACs.Put(m)
	gcm, additional, err := s.aead(m, salt, event, kind)
	if err != nil {
		return dst[:from], fmt.Errorf("seal a record: %w", err)
	}
	return gcm.Seal(dst, zeroNonce[:], plain, additional), nil //nolint:gosec // G407: the key seals this record alone
}

// Prefix is where the ciphertext begins in a sealed record.
const Prefix = headerLength + saltLength

// Open appends what was sealed for an event of the given id and type. To decrypt in place, dst is sealed[Prefix:Prefix]; what
// was sealed is then lost, whether it opens or not. The errors are ErrDamaged, ErrNewer and ErrOtherSeed.
func (s *Sealer) Open(dst []byte, event, kind string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return dst, ErrDamaged
	}
	if sealed[0] != recordVersion || sealed[1] != suiteAES {
		return dst, fmt.Errorf("%w: version %d, suite %d", ErrNewer, sealed[0], sealed[1])
	}
	if s.Foreign(sealed) {
		return dst, ErrOtherSeed
	}
	m := s.seedMACs.Get().(*mac)
	defer s.seedMACs.Put(m)
	gcm, additional, err := s.aead(m, sealed[headerLength:Prefix], event, kind)
	if err != nil {
		return dst, fmt.Errorf("open a record: %w", err)
	}
	opened, err := gcm.Open(dst, zeroNonce[:], sealed[Prefix:], additional)
	if err != nil {
		return dst, ErrDamaged
	}
	return opened, nil
}

// Foreign reports whether a sealed record says that it is of another seed, such as one that was deleted.
func (s *Sealer) Foreign(sealed []byte) bool {
	return len(sealed) >= headerLength && !bytes.Equal(sealed[2:headerLength], s.header[2:])
}

// The lengths of a sealed id's parts.
const vectorLength = aes.BlockSize

// MarkID is what a sealed id begins with: no producer's id does (event.CheckID).
const MarkID = '~'

var idText = base64.RawURLEncoding

// SealID returns the id as it is stored: the same text for the same id of the seed and the store.
func (s *Sealer) SealID(id string) string {
	m := s.idMACs.Get().(*mac)
	defer s.idMACs.Put(m)
	m.text = append(append(m.text[:0], s.context...), id...)
	vector := m.of()[:vectorLength]
	m.text = append(append(m.text[:0], vector...), id...)
	b := m.text
	s.mask(vector, b[vectorLength:])
	text := make([]byte, 1+idText.EncodedLen(len(b)))
	text[0] = MarkID
	idText.Encode(text[1:], b)
	return string(text)
}

// mask encrypts or decrypts an id in the counter mode that begins at the vector, which it overwrites. It is written out for
// the few blocks of an id, because cipher.NewCTR makes room for many.
func (s *Sealer) mask(vector, id []byte) {
	var block [aes.BlockSize]byte
	for len(id) > 0 {
		s.ids.Encrypt(block[:], vector)
		id = id[subtle.XORBytes(id, id, block[:min(len(id), len(block))]):]
		for i := len(vector) - 1; i >= 0; i-- {
			if vector[i]++; vector[i] != 0 {
				break
			}
		}
	}
}

// OpenID returns what SealID was given. Its error is ErrDamaged.
func (s *Sealer) OpenID(sealed string) (string, error) {
	if !IsSealedID(sealed) {
		return "", ErrDamaged
	}
	b, err := idText.Strict().DecodeString(sealed[1:])
	if err != nil || len(b) < vectorLength {
		return "", ErrDamaged
	}
	id, vector := b[vectorLength:], [vectorLength]byte(b)
	s.mask(vector[:], id)
	m := s.idMACs.Get().(*mac)
	defer s.idMACs.Put(m)
	m.text = append(append(m.text[:0], s.context...), id...)
	if !hmac.Equal(m.of()[:vectorLength], b[:vectorLength]) {
		return "", ErrDamaged
	}
	return string(id), nil
}

// IsSealedID reports whether a stored id is one that SealID made.
func IsSealedID(id string) bool { return id != "" && id[0] == MarkID }

// Use says what a value that is looked up means, so that equal values of two uses do not look the same.
type Use byte

// The uses.
const (
	UseDigest Use = 'd' // of all that the producer sent for an event
	UseOrder  Use = 'o' // what ordered deliveries are ordered by
	UseKey    Use = 'k' // a schedule's key
)

// Blind returns 128 bits of an HMAC of the value: equal for equal values of the seed, the store and the use, and of no use
// to anybody else, also not to check a guess.
func (s *Sealer) Blind(use Use, value []byte) [16]byte {
	m := s.lookupMACs.Get().(*mac)
	defer s.lookupMACs.Put(m)
	m.text = append(append(append(m.text[:0], byte(use)), s.context...), value...)
	return [16]byte(m.of())
}
