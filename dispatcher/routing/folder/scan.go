package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long a file must have stayed as it is before it is taken: scans are that far apart.
	settle = 200 * time.Millisecond
	// longSettled files are taken at the first look.
	longSettled = 2 * time.Second
	// mostLooks is at how many looks in a row a file may have changed before it is taken all the same.
	mostLooks = 4
	// maxFileBytes bounds what is read of one file.
	maxFileBytes = 32 << 20
)

// file is what is known of one file.
type file struct {
	taken    fs.FileInfo // as it was when it was read last; nil if it is to be read in any case
	seen     fs.FileInfo // as it was at the last look
	unsteady int         // looks in a row at which it was another
	absent   int         // looks in a row at which it was not there

	// content is what parsed, with what stood before in the documents that did not; nil if the file was never read. partial
	// is set if the file never parsed as a whole.
	content *content
	partial bool
	err     error // why the newest content could not be used
}

// scanner knows the files of a folder.
type scanner struct {
	dir   string
	files map[string]*file
}

// scan looks at the folder. changed is set if a file's content or its problem is another now, unsettled if a file may
// be in the middle of being written.
func (s *scanner) scan() (changed, unsettled bool, err error) {
	present, err := list(s.dir)
	if err != nil {
		return false, false, err
	}
	for name := range present {
		if s.files[name] == nil {
			s.files[name] = &file{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		info, statErr := os.Stat(filepath.Join(s.dir, name))
		f := s.files[name]
		var did, waits bool
		switch {
		case !present[name]:
			f.absent++
			did = f.absent > 1
			waits = !did
		case statErr != nil:
			did = f.fail(statErr)
		default:
			did, waits = f.look(name, s.dir, info)
		}
		if f.absent > 1 {
			delete(s.files, name)
		}
		changed, unsettled = changed || did, unsettled || waits
	}
	return changed, unsettled, nil
}

// list returns the names of the folder's manifests.
func list(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		switch strings.ToLower(filepath.Ext(name)) {
		case ".yaml", ".yml", ".json":
			names[name] = !strings.HasPrefix(name, ".") && !entry.IsDir()
		}
	}
	maps.DeleteFunc(names, func(_ string, wanted bool) bool { return !wanted })
	return names, nil
}

// look reads the file if it is another than the one taken, and settled.
func (f *file) look(name, dir string, info fs.FileInfo) (changed, unsettled bool) {
	before := f.seen
	f.seen, f.absent = info, 0
	if sameFile(f.taken, info) {
		f.unsteady = 0
		return false, false
	}
	f.unsteady++
	first := before == nil && time.Since(info.ModTime()) > longSettled
	if !first && !sameFile(before, info) && f.unsteady < mostLooks {
		return false, true
	}
	f.unsteady = 0
	f.taken = info
	return f.take(name, filepath.Join(dir, name)), false
}

// take reads and parses the file.
func (f *file) take(name, path string) (changed bool) {
	text, err := read(path)
	if err != nil {
		return f.fail(err)
	}
	parsed, err := parse(name, text)
	if err == nil {
		f.content, f.partial, f.err = parsed, false, nil
		return true
	}
	f.partial = f.partial || f.content == nil
	f.content, f.err = parsed.with(f.content), err
	return true
}

// fail notes why the file could not be read; what was read before stays, and the next look reads it again.
func (f *file) fail(err error) (changed bool) {
	f.taken, f.absent = nil, 0
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%s: %w", path.Op, path.Err)
	}
	changed = f.err == nil || f.err.Error() != err.Error()
	f.err = err
	return changed
}

func read(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("it is larger than %d bytes", maxFileBytes)
	}
	return text, err
}

// sameFile reports whether nothing was written between the two looks at a file: the same inode, size and time.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
