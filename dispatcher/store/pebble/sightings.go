package pebble

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// sightingBytes is the size of the first part of the filter. Each further one has twice the size of the one before, up
	// to sightingBytesEach, and all together up to sightingBytesAll: room for 45 million ids.
	sightingBytes     = 1 << 20
	sightingBytesEach = 16 << 20
	sightingBytesAll  = 64 << 20
	// bitsPerSighting gives one wrong answer in about a hundred and fifty, for each part.
	bitsPerSighting = 12
	// bitsPerBlock is a cache line: asking for an id reads one of each part.
	bitsPerBlock  = 512
	wordsPerBlock = bitsPerBlock / 64
	// sightingsAtOnce is how many ids are read from the store between looking whether it is being closed.
	sightingsAtOnce = 1024
)

// sightings is a Bloom filter (Putze et al., 2007: blocked) of the ids that were accepted within the last days. Nearly
// every id that is published is new, and to learn that from the filter costs a hundredth of asking Pebble. What it does
// not know was not accepted; what it knows may have been, and is looked up.
//
// Once it is full, its newest part fills up beyond measure, and the store is asked, as without it, until old parts go.
type sightings struct {
	complete atomic.Bool // whether all ids in the store are in it
	parts    atomic.Pointer[[]*sightingPart]
	mu       sync.Mutex // for changes
}

// sightingPart is a filter of its own.
type sightingPart struct {
	words  []atomic.Uint64
	free   int    // ids that there is room for
	newest uint32 // day of an id in it
}

// block is where an id's bits are: sha256 made it, so that any of its bits will do.
func (p *sightingPart) block(id *identity) []atomic.Uint64 {
	blocks := uint64(len(p.words) / wordsPerBlock)
	at := binary.LittleEndian.Uint64(id[:8]) % blocks * wordsPerBlock
	return p.words[at : at+wordsPerBlock]
}

// add puts an id into the part. One goroutine at a time may.
func (p *sightingPart) add(id *identity) {
	block := p.block(id)
	for bits := binary.LittleEndian.Uint64(id[8:]) | 1<<63; bits > 1; bits >>= 9 {
		word := &block[bits>>6%wordsPerBlock]
		word.Store(word.Load() | 1<<(bits%64))
	}
	p.free--
}

func (p *sightingPart) has(id *identity) bool {
	block := p.block(id)
	for bits := binary.LittleEndian.Uint64(id[8:]) | 1<<63; bits > 1; bits >>= 9 {
		if block[bits>>6%wordsPerBlock].Load()&(1<<(bits%64)) == 0 {
			return false
		}
	}
	return true
}

// has tells whether an id may have been accepted.
func (s *sightings) has(id *identity) bool {
	if !s.complete.Load() {
		return true
	}
	parts := s.list()
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i].has(id) {
			return true
		}
	}
	return false
}

func (s *sightings) list() []*sightingPart {
	if parts := s.parts.Load(); parts != nil {
		return *parts
	}
	return nil
}

// add notes ids that are accepted on the given day. It comes before the write that stores them.
func (s *sightings) add(day uint32, ids ...identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ids {
		p := s.newest()
		p.newest = max(p.newest, day)
		p.add(&ids[i])
	}
}

// newest is the part that takes what comes.
func (s *sightings) newest() *sightingPart {
	parts := s.list()
	size, all := sightingBytes, 0
	for _, p := range parts {
		all += len(p.words) * 8
	}
	if len(parts) > 0 {
		p := parts[len(parts)-1]
		size = min(len(p.words)*8*2, sightingBytesEach)
		if p.free > 0 || all+size > sightingBytesAll {
			return p
		}
	}
	p := &sightingPart{words: make([]atomic.Uint64, size/8), free: size * 8 / bitsPerSighting}
	parts = append(parts[:len(parts):len(parts)], p)
	s.parts.Store(&parts)
	return p
}

// drop forgets the parts that hold nothing younger than the given day.
func (s *sightings) drop(day uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []*sightingPart
	for _, p := range s.list() {
		if p.newest > day {
			rest = append(rest, p)
		}
	}
	s.parts.Store(&rest)
}

// recallSightings fills the filter with the ids that are in the store when it is opened.
func (s *Store) recallSightings() {
	defer s.work.Done()
	if err := s.readSightings(); err != nil && s.closing.Err() == nil {
		s.options.Logger.Error(err, "Reading the ids of the last day failed; each id that is published is looked up")
	}
}

func (s *Store) readSightings() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceIdempotency}, UpperBound: []byte{spaceIdempotency + 1}})
	if err != nil {
		return err
	}
	var ids []identity
	for ok := it.First(); ok; {
		var day uint32
		for ids = ids[:0]; ok && len(ids) < sightingsAtOnce; ok = it.Next() {
			if len(it.Key()) == idempotencyKeyLength {
				day = max(day, binary.BigEndian.Uint32(it.Key()[1:5]))
				ids = append(ids, identity(it.Key()[5:]))
			}
		}
		s.sightings.add(day, ids...)
		if err := s.closing.Err(); err != nil {
			_ = it.Close()
			return err
		}
	}
	// Whatever was appended meanwhile was added by who appended it.
	if err := it.Error(); err != nil {
		_ = it.Close()
		return err
	}
	s.sightings.complete.Store(true)
	return it.Close()
}
