package subscription

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// secretsKept is how long a Secret that was read serves the other subscriptions that name it.
	secretsKept = 5 * time.Second
	// absenceKept is the same for one that does not exist: a cache may not yet show that it was created.
	absenceKept = time.Second
	// maxSecretBytes bounds what is kept of Secrets at any time; what is beyond is read again.
	maxSecretBytes = 16 << 20
)

// secretReader reads each Secret from the API server once for all the subscriptions that name it and are reconciled
// within a few seconds, such as after a rotation. It is safe for concurrent use.
type secretReader struct {
	reader client.Reader

	mu    sync.Mutex
	kept  map[client.ObjectKey]*readSecret
	bytes int // of those that are kept
	sweep *time.Timer
}

// readSecret is one read of a Secret.
type readSecret struct {
	// asked is the version that the cache of metadata showed when it was read, got the one that was read.
	asked, got string
	done       chan struct{} // closed once what follows is set
	data       map[string][]byte
	found      bool
	err        error
	size       int
	until      time.Time
}

func newSecretReader(reader client.Reader) *secretReader {
	return &secretReader{reader: reader, kept: make(map[client.ObjectKey]*readSecret)}
}

// get returns the data of a Secret, and whether there is one. version is what is known of it: a Secret that was read
// before this version was known is read again.
func (s *secretReader) get(ctx context.Context, key client.ObjectKey, version string) (map[string][]byte, bool, error) {
	read, mine := s.join(key, version)
	if mine {
		read.data, read.found, read.got, read.err = s.read(ctx, key)
		s.keep(key, read)
		close(read.done)
	}
	select {
	case <-read.done:
		return read.data, read.found, read.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// join returns the read that serves a version. mine is set if the caller is to carry it out.
func (s *secretReader) join(key client.ObjectKey, version string) (read *readSecret, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept := s.kept[key]; kept != nil {
		select {
		case <-kept.done:
			if time.Now().Before(kept.until) && (kept.asked == version || kept.got == version) {
				return kept, false
			}
		default:
			if kept.asked == version {
				return kept, false
			}
		}
		s.drop(key, kept)
	}
	read = &readSecret{asked: version, done: make(chan struct{})}
	s.kept[key] = read
	return read, true
}

func (s *secretReader) read(ctx context.Context, key client.ObjectKey) (data map[string][]byte, found bool, version string, err error) {
	secret := &corev1.Secret{}
	err = s.reader.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		return nil, false, "", nil
	}
	return secret.Data, err == nil, versionOf(secret), err
}

// keep notes how long a read serves others, and makes room for it.
func (s *secretReader) keep(key client.ObjectKey, read *readSecret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[key] != read { // it was replaced while it was read
		return
	}
	if read.err != nil {
		delete(s.kept, key)
		return
	}
	read.until = time.Now().Add(secretsKept)
	if !read.found {
		read.until = time.Now().Add(absenceKept)
	}
	for _, value := range read.data {
		read.size += len(value)
	}
	s.bytes += read.size
	if s.bytes > maxSecretBytes {
		s.dropUnless(func(*readSecret) bool { return false })
	}
	if s.sweep == nil && len(s.kept) > 0 {
		s.sweep = time.AfterFunc(secretsKept, s.expire)
	}
}

// expire drops what has served its time, so that no value of a Secret stays in memory because of this.
func (s *secretReader) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = nil
	now := time.Now()
	s.dropUnless(func(read *readSecret) bool { return now.Before(read.until) })
	if len(s.kept) > 0 {
		s.sweep = time.AfterFunc(secretsKept, s.expire)
	}
}

// dropUnless drops the reads that are done and not wanted any more.
func (s *secretReader) dropUnless(wanted func(*readSecret) bool) {
	for key, read := range s.kept {
		if !read.until.IsZero() && !wanted(read) {
			s.drop(key, read)
		}
	}
}

func (s *secretReader) drop(key client.ObjectKey, read *readSecret) {
	delete(s.kept, key)
	s.bytes -= read.size
}

// versionOf tells one state of an object from every other.
func versionOf(object client.Object) string {
	return string(object.GetUID()) + "/" + object.GetResourceVersion()
}
