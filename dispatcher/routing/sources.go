package routing

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// SourcesKey holds EncodeSources's bytes, beside ShardKey in the Secret of a shard. Dispatchers do not read it.
const SourcesKey = "sources"

// SourcesDigest stands for all that an entry was compiled from: equal digests, equal entries. The zero value is not known.
type SourcesDigest [12]byte

// NewSourcesDigest returns the digest of texts, which stand for themselves: no two lists have one alike.
func NewSourcesDigest(texts ...string) SourcesDigest {
	hash := sha256.New()
	for _, text := range texts {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(text), text) // a hash takes everything
	}
	var digest SourcesDigest
	copy(digest[:], hash.Sum(nil))
	return digest
}

// EncodeSources returns the entries' digests as the Secret of their shard holds them: the hash of the shard, so that they are
// taken for no other's, and behind it the digests in the order of the entries.
func EncodeSources(shard []byte, entries []*Entry) []byte {
	out := bytes.NewBuffer(make([]byte, 0, sourcesBytes(len(entries))))
	sum := sha256.Sum256(shard)
	out.Write(sum[:])
	for _, entry := range sortedEntries(entries) {
		out.Write(entry.Sources[:])
	}
	return out.Bytes()
}

// DecodeSources gives the entries of a shard their digests. Where they are not those of this shard it does nothing: then
// nothing is known of what the entries were compiled from.
func DecodeSources(sources, shard []byte, entries []*Entry) {
	sum := sha256.Sum256(shard)
	if len(sources) != sourcesBytes(len(entries)) || !bytes.HasPrefix(sources, sum[:]) {
		return
	}
	rest := sources[len(sum):]
	for i, entry := range sortedEntries(entries) {
		copy(entry.Sources[:], rest[i*len(entry.Sources):])
	}
}

// sourcesBytes is the length of the digests of so many entries.
func sourcesBytes(entries int) int { return sha256.Size + entries*len(SourcesDigest{}) }

func sortedEntries(entries []*Entry) []*Entry {
	return slices.SortedFunc(slices.Values(entries), func(a, b *Entry) int { return strings.Compare(a.Identity, b.Identity) })
}
