package main

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// file is an entry of an archive. Folders are not written: every tool makes those that it misses.
type file struct {
	name    string
	mode    int64
	content []byte
}

// writeTar writes the files in their order, owned by root, with one time for all.
func writeTar(w io.Writer, at time.Time, files []file) error {
	archive := tar.NewWriter(w)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: at, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("archive %s: %w", f.name, err)
		}
		if _, err := archive.Write(f.content); err != nil {
			return fmt.Errorf("archive %s: %w", f.name, err)
		}
	}
	return archive.Close()
}

// writeTarGz is writeTar, compressed. gzip's header has neither time nor name.
func writeTarGz(w io.Writer, at time.Time, files []file) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeTar(compressed, at, files); err != nil {
		return err
	}
	return compressed.Close()
}

// readFiles returns the files below a folder, by name.
func readFiles(folder string) ([]file, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	var files []file
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := root.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, file{path, 0o644, content})
		return nil
	})
	return files, err
}
