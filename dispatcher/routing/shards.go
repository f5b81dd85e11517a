package routing

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// The keys of the Secrets that hold a routing table.
const (
	// IndexKey holds EncodeIndex's bytes, in the Secret IndexName.
	IndexKey = "index.json"
	// ShardKey holds EncodeShard's bytes, in a Secret ShardName.
	ShardKey = "shard.json.gz"
)

const (
	// format is the version of both encodings. A reader refuses any other, and fields it does not know: a rule that a
	// newer manager wrote must not be lost on an older dispatcher.
	format = 1
	// MaxShardBytes is what an API server takes as one Secret's data.
	MaxShardBytes = 1 << 20
	// maxShardText bounds a shard's text, so that few bytes cannot decompress to more than memory holds.
	maxShardText = 32 << 20
	// maxIndexBytes bounds an index; one is about 5 KiB, or 20.
	maxIndexBytes = 64 << 10
)

// encoding is how both are written, and read back: the same bytes for the same content, durations as nanoseconds.
var encoding = json.JoinOptions(json.Deterministic(true), json.RejectUnknownMembers(true), jsonv1.FormatDurationAsNano(true))

// ErrShardFull says that a shard has no room for its entries.
var ErrShardFull = errors.New("the routing table's shard is full")

// IndexName is the name of the Secret that holds a dispatcher's index.
func IndexName(dispatcher string) string { return dispatcher + "-routes" }

// Index says of which shards a routing table consists.
type Index struct {
	// Revision grows with every change.
	Revision int64
	// Layout is how the table is divided; 0 stands for Small.
	Layout Layout
	// Shards holds the Hash of each shard that is not empty.
	Shards map[int]string
}

// indexText is an Index as it is written down.
type indexText struct {
	Format   int               `json:"format"`
	Revision int64             `json:"revision"`
	Layout   Layout            `json:"layout,omitzero"` // of a Small table none: earlier versions read it
	Shards   map[string]string `json:"shards"`
}

// Encode returns the index as the Secret holds it. Equal indexes give equal bytes.
func (x *Index) Encode() ([]byte, error) {
	text := indexText{Format: format, Revision: x.Revision, Shards: make(map[string]string, len(x.Shards))}
	if x.Layout != Small {
		text.Layout = x.Layout
	}
	for i, hash := range x.Shards {
		text.Shards[fmt.Sprintf("%02d", i)] = hash
	}
	b, err := json.Marshal(text, encoding)
	if err != nil {
		return nil, fmt.Errorf("encode the routing table's index: %w", err)
	}
	return b, nil
}

// DecodeIndex reads what Encode wrote.
func DecodeIndex(b []byte) (*Index, error) {
	x, err := decodeIndex(b)
	if err != nil {
		return nil, fmt.Errorf("decode the routing table's index: %w", err)
	}
	return x, nil
}

func decodeIndex(b []byte) (*Index, error) {
	if len(b) > maxIndexBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", len(b), maxIndexBytes)
	}
	var text indexText
	if err := decodeText(b, &text); err != nil {
		return nil, err
	}
	if text.Format != format {
		return nil, fmt.Errorf("format %d is not known, %d is", text.Format, format)
	}
	if text.Revision < 1 {
		return nil, errors.New("no revision")
	}
	x := &Index{Revision: text.Revision, Layout: cmp.Or(text.Layout, Small), Shards: make(map[int]string, len(text.Shards))}
	if !slices.Contains(layouts, x.Layout) {
		return nil, fmt.Errorf("layout %d is not known", text.Layout)
	}
	for name, hash := range text.Shards {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= int(x.Layout) || fmt.Sprintf("%02d", i) != name {
			return nil, fmt.Errorf("%q is not a shard", name)
		}
		if sum, err := hex.DecodeString(hash); err != nil || len(sum) != sha256.Size || strings.ToLower(hash) != hash {
			return nil, fmt.Errorf("shard %s: %q is not a hash", name, hash)
		}
		x.Shards[i] = hash
	}
	return x, nil
}

// Hash is the content hash by which an index names a shard: hex SHA-256 of the bytes that EncodeShard returned.
func Hash(shard []byte) string {
	sum := sha256.Sum256(shard)
	return hex.EncodeToString(sum[:])
}

// shardText is a shard as it is written down, before it is compressed.
type shardText struct {
	Format  int      `json:"format"`
	Entries []*Entry `json:"entries"`
}

// EncodeShard returns a shard as the Secret holds it: gzip-compressed JSON, the entries sorted by identity. The same
// entries in any order give the same bytes. It fails with ErrShardFull if they are more than a Secret takes.
func EncodeShard(entries []*Entry) ([]byte, error) {
	text, err := json.Marshal(shardText{Format: format, Entries: sortedEntries(entries)}, encoding)
	if err != nil {
		return nil, fmt.Errorf("encode a shard of the routing table: %w", err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compress a shard of the routing table: %w", err)
	}
	if room := MaxShardBytes - sourcesBytes(len(entries)); out.Len() > room || len(text) > maxShardText {
		return nil, fmt.Errorf("%w: its %d subscriptions take %d bytes, %d fit; delete subscriptions, or spread them over several WebhookDispatchers",
			ErrShardFull, len(entries), out.Len(), room)
	}
	return out.Bytes(), nil
}

// DecodeShard reads what EncodeShard wrote. It reads a bounded part of what b decompresses to. That an entry can be
// routed is for Entry.Route to tell.
func DecodeShard(b []byte) ([]*Entry, error) {
	entries, err := decodeShard(b)
	if err != nil {
		return nil, fmt.Errorf("decode a shard of the routing table: %w", err)
	}
	return entries, nil
}

func decodeShard(b []byte) ([]*Entry, error) {
	if len(b) > MaxShardBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", len(b), MaxShardBytes)
	}
	plain, err := decompress(b)
	if err != nil {
		return nil, err
	}
	var text shardText
	if err := decodeText(plain, &text); err != nil {
		return nil, err
	}
	if text.Format != format {
		return nil, fmt.Errorf("format %d is not known, %d is", text.Format, format)
	}
	for i, entry := range text.Entries {
		if entry == nil || i > 0 && entry.Identity <= text.Entries[i-1].Identity {
			return nil, errors.New("the entries are not sorted by identity")
		}
		entry.share()
	}
	return text.Entries, nil
}

func decodeText(text []byte, into any) error {
	err := json.Unmarshal(text, into, encoding)
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		semantic.JSONValue = nil // it may be a key, and errors are logged
	}
	return err
}

func decompress(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxShardText+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxShardText {
		return nil, fmt.Errorf("it decompresses to more than %d bytes", maxShardText)
	}
	return text, nil
}

// EncodeTable returns a whole table as it is written down: its index, and the shards that are not empty.
func EncodeTable(revision int64, entries []*Entry) (*Index, map[int][]byte, error) {
	for _, layout := range layouts {
		index, shards, err := encodeTable(layout, revision, entries)
		if !errors.Is(err, ErrShardFull) || layout == Large {
			return index, shards, err
		}
	}
	return nil, nil, ErrShardFull
}

func encodeTable(layout Layout, revision int64, entries []*Entry) (*Index, map[int][]byte, error) {
	divided := make(map[int][]*Entry)
	for _, entry := range entries {
		i := layout.ShardOf(entry.Identity)
		divided[i] = append(divided[i], entry)
	}
	index, shards := &Index{Revision: revision, Layout: layout, Shards: make(map[int]string, len(divided))}, make(map[int][]byte, len(divided))
	for i, part := range divided {
		b, err := EncodeShard(part)
		if err != nil {
			return nil, nil, fmt.Errorf("shard %d: %w", i, err)
		}
		index.Shards[i], shards[i] = Hash(b), b
	}
	return index, shards, nil
}
