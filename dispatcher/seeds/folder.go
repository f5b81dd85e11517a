package seeds

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Folder keeps a file for each tenant in a folder that is not on the store's volume. One process writes there; it is for a
// dispatcher without a cluster.
type Folder struct {
	dir string
	mu  sync.Mutex // held by writers
}

// NewFolder returns the keeper of dir, which it creates, for its owner alone.
func NewFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of seeds: %w", err)
	}
	return &Folder{dir: dir}, nil
}

const (
	seedSuffix = ".seed"
	newPrefix  = ".new-"
)

// path is that of the tenant's file. Its name is a hash: a tenant's may be any text.
func (f *Folder) path(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return filepath.Join(f.dir, hex.EncodeToString(sum[:16])+seedSuffix)
}

// Get reads the tenant's file.
func (f *Folder) Get(_ context.Context, tenant string) (Record, error) {
	r, err := readRecord(f.path(tenant))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, ErrNone
	}
	if err == nil && r.Tenant != tenant {
		err = errors.New("it is another tenant's")
	}
	if err != nil {
		return Record{}, fmt.Errorf("read a seed: %w", err)
	}
	return r, nil
}

func readRecord(path string) (r Record, err error) {
	file, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err := io.ReadAll(io.LimitReader(file, maxRecord+1))
	if err != nil {
		return r, err
	}
	return Decode(text)
}

// Create links the file into its place, which fails if there is one.
func (f *Folder) Create(_ context.Context, r Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(r, os.Link)
}

// Replace renames the file into its place.
func (f *Folder) Replace(ctx context.Context, before, next Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept, err := f.Get(ctx, before.Tenant)
	if errors.Is(err, ErrNone) || err == nil && !bytes.Equal(kept.Seed, before.Seed) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	return f.write(next, os.Rename)
}

// write makes the record durable beside its place, and puts it there.
func (f *Folder) write(r Record, put func(from, to string) error) error {
	text, err := r.Encode()
	if err != nil {
		return err
	}
	fresh := filepath.Join(f.dir, newPrefix+rand.Text())
	defer func() { _ = os.Remove(fresh) }() // it is gone if it was renamed
	if err := writeSynced(fresh, text); err != nil {
		return fmt.Errorf("write a seed: %w", err)
	}
	err = put(fresh, f.path(r.Tenant))
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return fmt.Errorf("write a seed: %w", err)
	}
	return nil
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

func (f *Folder) sync() error {
	dir, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Delete overwrites the file before it removes it. The bytes may outlive that on a copy-on-write or a flash volume, where
// they are still wrapped.
func (f *Folder) Delete(_ context.Context, tenant string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := f.path(tenant)
	err := overwrite(path)
	if err == nil {
		err = errors.Join(os.Remove(path), f.sync())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete a seed: %w", err)
	}
	return nil
}

func overwrite(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Write(make([]byte, info.Size()))
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// List reads every file.
func (f *Folder) List(ctx context.Context, yield func(Record) error) error {
	files, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("list the seeds: %w", err)
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !strings.HasSuffix(file.Name(), seedSuffix) {
			continue
		}
		r, err := readRecord(filepath.Join(f.dir, file.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since
		}
		if err != nil {
			return fmt.Errorf("list the seeds: %s: %w", file.Name(), err)
		}
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}
