package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"runtime"
	"strings"
)

// MaxAsymmetric is how many v1a signatures of a delivery a receiver looks at, for each of its keys. A sender has three keys at
// most; each more would let anyone buy 50 µs of the receiver's time, and a hash of the body, for 92 bytes of a header.
const MaxAsymmetric = 8

// asymmetricLength is the length of one signature's text.
const asymmetricLength = len(asymmetricVersion) + (ed25519.SignatureSize+2)/3*4

// maxKept is the largest message, in bytes, whose buffer is kept for the next.
const maxKept = 256 << 10

// messages are the places in which a message is put together: crypto/ed25519 reads it twice, and so takes it in one piece. There
// are as many as there are processors, which is what copies of bodies may cost in memory, however many attempts are under way.
// Nobody waits for anything but a processor in between.
var messages = func() chan []byte {
	places := make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(places) {
		places <- nil
	}
	return places
}()

// withMessage calls f with the prefix and the body in one piece.
func withMessage(prefix, body []byte, f func(message []byte)) {
	message := <-messages
	message = append(append(message[:0], prefix...), body...)
	defer func() {
		if cap(message) > maxKept {
			message = nil
		}
		messages <- message
	}()
	f(message)
}

// appendAsymmetric appends "v1a," and the base64 ed25519 signature (RFC 8032) of s.prefix and body.
func (k *Key) appendAsymmetric(b []byte, s *scratch, body []byte) []byte {
	withMessage(s.prefix, body, func(message []byte) {
		b = base64.StdEncoding.AppendEncode(append(b, asymmetricVersion...), ed25519.Sign(k.pair.private, message))
	})
	return b
}

// verifyAsymmetric reports whether the key made one of the signatures. All that it compares is public.
func (k *Key) verifyAsymmetric(prefix, body []byte, signatures string) (made bool) {
	withMessage(prefix, body, func(message []byte) {
		looked := 0
		for signature := range strings.FieldsSeq(signatures) {
			encoded, found := strings.CutPrefix(signature, asymmetricVersion)
			if !found || len(signature) != asymmetricLength {
				continue
			}
			raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
			if err != nil || len(raw) != ed25519.SignatureSize {
				continue
			}
			if looked++; looked > MaxAsymmetric {
				return
			}
			if ed25519.Verify(k.pair.public, message, raw) {
				made = true
				return
			}
		}
	})
	return made
}
