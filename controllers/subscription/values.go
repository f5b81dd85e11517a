package subscription

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// secretsKept is how long what was read serves the other subscriptions that name it.
	secretsKept = 5 * time.Second
	// absenceKept is the same for one that does not exist: a cache may not yet show that it was created.
	absenceKept = time.Second
	// maxSecretBytes bounds what is kept of Secrets at any time; what is beyond is read again.
	maxSecretBytes = 16 << 20
)

// fetch reads the values of a Secret or ConfigMap from the API server, and its version. Not found is no error.
type fetch func(ctx context.Context, key client.ObjectKey) (values map[string][]byte, found bool, version string, err error)

// valueReader reads each Secret, or each ConfigMap, from the API server once for all the subscriptions that name it and are
// reconciled within a few seconds, such as after a rotation. It is safe for concurrent use.
type valueReader struct {
	fetch fetch

	mu    sync.Mutex
	kept  map[client.ObjectKey]*valueRead
	bytes int // of those that are kept
	sweep *time.Timer
}

// valueRead is one read of a Secret or ConfigMap.
type valueRead struct {
	// asked is the version that the cache of metadata showed when it was read, got the one that was read.
	asked, got string
	done       chan struct{} // closed once what follows is set
	data       map[string][]byte
	found      bool
	err        error
	size       int
	until      time.Time
}

func newValueReader(fetch fetch) *valueReader {
	return &valueReader{fetch: fetch, kept: make(map[client.ObjectKey]*valueRead)}
}

// get returns the values of an object, whether there is one, and its version. known is the version that the caller knows
// of: an object that was read before this version was known is read again.
func (s *valueReader) get(ctx context.Context, key client.ObjectKey, known string) (values map[string][]byte, found bool, version string, err error) {
	read, mine := s.join(key, known)
	if mine {
		read.data, read.found, read.got, read.err = s.fetch(ctx, key)
		s.keep(key, read)
		close(read.done)
	}
	select {
	case <-read.done:
		return read.data, read.found, read.got, read.err
	case <-ctx.Done():
		return nil, false, "", ctx.Err()
	}
}

// join returns the read that serves a version. mine is set if the caller is to carry it out.
func (s *valueReader) join(key client.ObjectKey, version string) (read *valueRead, mine bool) {
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
	read = &valueRead{asked: version, done: make(chan struct{})}
	s.kept[key] = read
	return read, true
}

// fetchObject reads a Secret, nil if there is none.
type fetchObject func(ctx context.Context, key client.ObjectKey) (*corev1.Secret, error)

// fetchSecrets reads Secrets.
func fetchSecrets(reader client.Reader) fetchObject {
	return func(ctx context.Context, key client.ObjectKey) (*corev1.Secret, error) {
		secret := &corev1.Secret{}
		err := reader.Get(ctx, key, secret)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return secret, err
	}
}

// fetchConfigMaps reads ConfigMaps.
func fetchConfigMaps(reader client.Reader) fetch {
	return func(ctx context.Context, key client.ObjectKey) (map[string][]byte, bool, string, error) {
		configMap := &corev1.ConfigMap{}
		err := reader.Get(ctx, key, configMap)
		if apierrors.IsNotFound(err) {
			return nil, false, "", nil
		}
		values := maps.Clone(configMap.BinaryData)
		if values == nil {
			values = make(map[string][]byte, len(configMap.Data))
		}
		for name, text := range configMap.Data {
			values[name] = []byte(text)
		}
		return values, err == nil, versionOf(configMap), err
	}
}

// keep notes how long a read serves others, and makes room for it.
func (s *valueReader) keep(key client.ObjectKey, read *valueRead) {
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
		s.dropUnless(func(*valueRead) bool { return false })
	}
	if s.sweep == nil && len(s.kept) > 0 {
		s.sweep = time.AfterFunc(secretsKept, s.expire)
	}
}

// expire drops what has served its time, so that no value of a Secret stays in memory because of this.
func (s *valueReader) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = nil
	now := time.Now()
	s.dropUnless(func(read *valueRead) bool { return now.Before(read.until) })
	if len(s.kept) > 0 {
		s.sweep = time.AfterFunc(secretsKept, s.expire)
	}
}

// dropUnless drops the reads that are done and not wanted any more.
func (s *valueReader) dropUnless(wanted func(*valueRead) bool) {
	for key, read := range s.kept {
		if !read.until.IsZero() && !wanted(read) {
			s.drop(key, read)
		}
	}
}

func (s *valueReader) drop(key client.ObjectKey, read *valueRead) {
	delete(s.kept, key)
	s.bytes -= read.size
}

// versionOf tells one state of an object from every other.
func versionOf(object client.Object) string {
	return string(object.GetUID()) + "/" + object.GetResourceVersion()
}
