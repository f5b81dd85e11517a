package routing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/clinikapi/eventflow/dispatcher/envelope"
)

// LastGood keeps the last complete table on disk, so that a dispatcher starts while its source is unavailable. It is a folder
// of its own: a file for each shard, named by its content hash, and the index, written last. Whoever may read the files
// may read the Secrets in them; they are for their owner alone.
type LastGood struct {
	dir  string
	ring func() *envelope.KeyRing // nil if files are not encrypted
	mu   sync.Mutex               // held to write
}

// Encrypt makes files be encrypted by the ring that is current when they are written. Those that were written in the clear
// are read as well.
func (l *LastGood) Encrypt(ring func() *envelope.KeyRing) { l.ring = ring }

// NewLastGood returns the table that is kept in dir, which need not exist yet. Nothing else may write there.
func NewLastGood(dir string) *LastGood { return &LastGood{dir: dir} }

const (
	lastGoodIndex = "index"
	shardPrefix   = "shard-"
)

// Save makes a table durable in place of the one before, all or nothing. shard is asked for those that are not on disk
// already.
func (l *LastGood) Save(index *Index, shard func(i int) ([]byte, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.save(index, shard); err != nil {
		return fmt.Errorf("save the routing table to %s: %w", l.dir, err)
	}
	return nil
}

func (l *LastGood) save(index *Index, shard func(i int) ([]byte, error)) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	kept := map[string]bool{lastGoodIndex: true}
	for _, i := range slices.Sorted(maps.Keys(index.Shards)) {
		name := shardFile(i, index.Shards[i])
		kept[name] = true
		if b, err := l.read(name, MaxShardBytes); err == nil && Hash(b) == index.Shards[i] {
			continue
		}
		b, err := shard(i)
		if err != nil {
			return fmt.Errorf("get shard %d: %w", i, err)
		}
		if Hash(b) != index.Shards[i] {
			return fmt.Errorf("shard %d is not the one that the index names", i)
		}
		if err := l.write(name, b); err != nil {
			return err
		}
	}
	text, err := index.Encode()
	if err != nil {
		return err
	}
	if err := l.write(lastGoodIndex, append([]byte(Hash(text)+"\n"), text...)); err != nil {
		return err
	}
	return l.removeAllBut(kept)
}

// Load returns the last table that was saved: its index and its shards, which hold what the index says. The error is
// fs.ErrNotExist if none was saved, and says what is damaged otherwise.
func (l *LastGood) Load() (*Index, map[int][]byte, error) {
	index, shards, err := l.load()
	if err != nil {
		return nil, nil, fmt.Errorf("load the routing table from %s: %w", l.dir, err)
	}
	return index, shards, nil
}

func (l *LastGood) load() (*Index, map[int][]byte, error) {
	b, err := l.read(lastGoodIndex, 2*maxIndexBytes)
	if err != nil {
		return nil, nil, err
	}
	sum, text, found := bytes.Cut(b, []byte("\n"))
	if !found || string(sum) != Hash(text) {
		return nil, nil, errors.New("the index is damaged")
	}
	index, err := DecodeIndex(text)
	if err != nil {
		return nil, nil, err
	}
	shards := make(map[int][]byte, len(index.Shards))
	for i, hash := range index.Shards {
		b, err := l.read(shardFile(i, hash), MaxShardBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("shard %d is missing", i) // not as if none had been saved
		}
		if err != nil {
			return nil, nil, err
		}
		if Hash(b) != hash {
			return nil, nil, fmt.Errorf("shard %d is damaged", i)
		}
		shards[i] = b
	}
	return index, shards, nil
}

func shardFile(i int, hash string) string { return fmt.Sprintf("%s%02d-%s", shardPrefix, i, hash) }

func (l *LastGood) read(name string, limit int64) (b []byte, err error) {
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err = io.ReadAll(io.LimitReader(f, limit+sealedExtra+1))
	if err == nil && l.ring != nil && envelope.IsSealedFile(b) {
		return l.ring().OpenFile(name, b)
	}
	return b, err
}

// sealedExtra is by how much a file grows at most when it is encrypted.
const sealedExtra = 128

// Reseal encrypts with the current key what is in the clear, or was encrypted by an earlier one.
func (l *LastGood) Reseal() error {
	if l.ring == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	files, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, file := range files {
		if name := file.Name(); err == nil && (name == lastGoodIndex || strings.HasPrefix(name, shardPrefix)) {
			err = l.resealFile(name)
		}
	}
	if err != nil {
		return fmt.Errorf("encrypt the routing table in %s: %w", l.dir, err)
	}
	return nil
}

func (l *LastGood) resealFile(name string) error {
	sealed, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil || l.ring().IsCurrent(sealed) {
		return err
	}
	b, err := l.read(name, MaxShardBytes)
	if err != nil {
		return err
	}
	return l.write(name, b)
}

// write makes a file durable under its name: written beside it, synced, renamed, and the rename synced.
func (l *LastGood) write(name string, b []byte) (err error) {
	if l.ring != nil {
		if b, err = l.ring().SealFile(name, b); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(l.dir, "."+name+"-") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(l.dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return l.syncDir()
}

func (l *LastGood) syncDir() error {
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeAllBut removes the shards of earlier tables, and what a write left behind that was interrupted.
func (l *LastGood) removeAllBut(kept map[string]bool) error {
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		name := file.Name()
		ours := strings.HasPrefix(strings.TrimPrefix(name, "."), shardPrefix) || strings.HasPrefix(name, "."+lastGoodIndex+"-")
		if kept[name] || !ours {
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
			return err
		}
	}
	return nil
}
