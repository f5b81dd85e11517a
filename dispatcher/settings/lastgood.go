package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// LastGood keeps the last good document on disk, so that a dispatcher starts without the API server.
type LastGood struct{ path string }

// NewLastGood returns the document that is kept in the file path. Its folder need not exist yet.
func NewLastGood(path string) *LastGood { return &LastGood{path: path} }

// Load returns the settings that were saved last. The error is fs.ErrNotExist if there are none, and says what is wrong
// with the file otherwise.
func (l *LastGood) Load() (_ *Settings, err error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("load the settings: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("load the settings from %s: %w", l.path, err)
	}
	return Decode(b)
}

// Save makes the settings durable in place of those before.
func (l *LastGood) Save(s *Settings) error {
	b, err := s.Encode()
	if err == nil {
		err = l.write(b)
	}
	if err != nil {
		return fmt.Errorf("save the settings to %s: %w", l.path, err)
	}
	return nil
}

// write writes beside the file, syncs, renames, and syncs the rename.
func (l *LastGood) write(b []byte) error {
	dir := filepath.Dir(l.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fresh := l.path + ".new" // nobody else writes here; one that a crash left is overwritten
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, l.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
