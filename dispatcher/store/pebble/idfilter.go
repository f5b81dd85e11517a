package pebble

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// filterBytes is the size of the first part of the filter. Each further one has twice the size of the one before, up
	// to filterBytesEach, and all together up to filterBytesAll: room for 45 million ids.
	filterBytes     = 1 << 20
	filterBytesEach = 16 << 20
	filterBytesAll  = 64 << 20
	// bitsPerID gives one wrong answer in about three hundred, for each part that is full.
	bitsPerID = 12
	// bitsPerBlock is a cache line: asking for an id reads one of each part.
	bitsPerBlock  = 512
	wordsPerBlock = bitsPerBlock / 64
	// idsAtOnce is how many ids are read from the store between looking whether it is being closed.
	idsAtOnce = 1024
)

// idFilter is a Bloom filter (Putze et al., 2007: blocked) of the ids that were accepted within the last days. Nearly
// every id that is published is new, and to learn that from the filter costs a twentieth of asking Pebble. What it does
// not know was not accepted; what it knows may have been, and is looked up.
//
// Once it is full, its newest part fills up beyond measure, and the store is asked, as without it, until old parts go.
type idFilter struct {
	complete atomic.Bool // whether all ids in the store are in it
	parts    atomic.Pointer[[]*filterPart]
	mu       sync.Mutex // for changes
}

// filterPart is a filter of its own.
type filterPart struct {
	words  []atomic.Uint64
	free   int    // ids that there is room for
	newest uint32 // day of an id in it
}

// block is where an id's bits are: sha256 made it, so that any of its bits will do.
func (p *filterPart) block(id *identity) []atomic.Uint64 {
	blocks := uint64(len(p.words) / wordsPerBlock)
	at := binary.LittleEndian.Uint64(id[:8]) % blocks * wordsPerBlock
	return p.words[at : at+wordsPerBlock]
}

// add puts an id into the part. One goroutine at a time may.
func (p *filterPart) add(id *identity) {
	block := p.block(id)
	for bits := binary.LittleEndian.Uint64(id[8:]) | 1<<63; bits > 1; bits >>= 9 {
		word := &block[bits>>6%wordsPerBlock]
		word.Store(word.Load() | 1<<(bits%64))
	}
	p.free--
}

func (p *filterPart) has(id *identity) bool {
	block := p.block(id)
	for bits := binary.LittleEndian.Uint64(id[8:]) | 1<<63; bits > 1; bits >>= 9 {
		if block[bits>>6%wordsPerBlock].Load()&(1<<(bits%64)) == 0 {
			return false
		}
	}
	return true
}

// has reports whether an id may have been accepted.
func (f *idFilter) has(id *identity) bool {
	if !f.complete.Load() {
		return true
	}
	parts := f.list()
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i].has(id) {
			return true
		}
	}
	return false
}

func (f *idFilter) list() []*filterPart {
	if parts := f.parts.Load(); parts != nil {
		return *parts
	}
	return nil
}

// add notes ids that are accepted on the given day. It comes before the write that stores them.
func (f *idFilter) add(day uint32, ids ...identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range ids {
		p := f.newest()
		p.newest = max(p.newest, day)
		p.add(&ids[i])
	}
}

// newest is the part that takes what comes.
func (f *idFilter) newest() *filterPart {
	parts := f.list()
	size, all := filterBytes, 0
	for _, p := range parts {
		all += len(p.words) * 8
	}
	if len(parts) > 0 {
		p := parts[len(parts)-1]
		size = min(len(p.words)*8*2, filterBytesEach)
		if p.free > 0 || all+size > filterBytesAll {
			return p
		}
	}
	p := &filterPart{words: make([]atomic.Uint64, size/8), free: size * 8 / bitsPerID}
	parts = append(parts[:len(parts):len(parts)], p)
	f.parts.Store(&parts)
	return p
}

// drop forgets the parts that hold nothing younger than the given day.
func (f *idFilter) drop(day uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rest []*filterPart
	for _, p := range f.list() {
		if p.newest > day {
			rest = append(rest, p)
		}
	}
	f.parts.Store(&rest)
}

// fillIDFilter fills the filter with the ids that are in the store when it is opened.
func (s *Store) fillIDFilter() {
	defer s.work.Done()
	if err := s.readIDs(); err != nil && s.closing.Err() == nil {
		s.options.Logger.Error(err, "Reading the ids of the last day failed; each id that is published is looked up")
	}
}

func (s *Store) readIDs() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceIdempotency}, UpperBound: []byte{spaceIdempotency + 1}})
	if err != nil {
		return err
	}
	var ids []identity
	for ok := it.First(); ok && s.closing.Err() == nil; {
		var day uint32
		for ids = ids[:0]; ok && len(ids) < idsAtOnce; ok = it.Next() {
			if len(it.Key()) == idempotencyKeyLength {
				day = max(day, binary.BigEndian.Uint32(it.Key()[1:5]))
				ids = append(ids, identity(it.Key()[5:]))
			}
		}
		s.idFilter.add(day, ids...)
	}
	if err := errors.Join(s.closing.Err(), it.Error(), it.Close()); err != nil {
		return err
	}
	// Whatever was appended meanwhile was added by who appended it.
	s.idFilter.complete.Store(true)
	return nil
}
