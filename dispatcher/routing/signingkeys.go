package routing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// keySaltBytes are the bytes of a salt. That is more than anyone can try.
const keySaltBytes = 16

// keyIDBytes are the bytes of an id: enough that the three keys of a subscription do not share one.
const keyIDBytes = 5

// Salt gives an entry that has just been compiled the salt of previous, the entry that it replaces, or a new one. So a key keeps
// its id as long as its subscription is in the table.
//
// A hash of the key alone would do that, too. But a key may be a phrase that a person made up, and statuses are read by many: the
// hash would let each of them try guesses without a request. The salt is as secret as the keys beside which it stands.
func (e *Entry) Salt(previous *Entry) {
	if previous != nil && len(previous.KeySalt) > 0 && previous.Identity == e.Identity {
		e.KeySalt = previous.KeySalt
		return
	}
	e.KeySalt = make([]byte, keySaltBytes)
	_, _ = rand.Read(e.KeySalt) // never fails
}

// SigningKeys are the keys that sign by the entry, in their order, with no time. There are none while it waits, and without a
// salt: an earlier version made the entry.
func (e *Entry) SigningKeys() []v1alpha1.SigningKey {
	if e.Waiting != "" || len(e.KeySalt) == 0 {
		return nil
	}
	keys := make([]v1alpha1.SigningKey, 0, len(e.Keys))
	for _, text := range e.Keys {
		key, err := signature.ParseKey(text)
		if err != nil { // an earlier version took it: deliveries wait
			return nil
		}
		one := signingKey(key, text, e.KeySalt)
		if !slices.ContainsFunc(keys, func(other v1alpha1.SigningKey) bool { return other.ID == one.ID }) { // a pair is written in two ways
			keys = append(keys, one)
		}
	}
	return keys
}

func signingKey(key *signature.Key, text, salt []byte) v1alpha1.SigningKey {
	if public := key.Public(); public != "" {
		return v1alpha1.SigningKey{ID: PublicKeyID(public), Scheme: v1alpha1.SchemePair, PublicKey: public}
	}
	mac := hmac.New(sha256.New, salt)
	mac.Write(text)
	return v1alpha1.SigningKey{ID: keyID(mac.Sum(nil)), Scheme: v1alpha1.SchemeShared}
}

// PublicKeyID is the id of a pair by its public key, as receivers get it.
func PublicKeyID(public string) string {
	sum := sha256.Sum256([]byte(public))
	return keyID(sum[:])
}

func keyID(sum []byte) string {
	return "key_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:keyIDBytes]))
}
