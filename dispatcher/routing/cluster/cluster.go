package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// firstDelay and longestDelay bound the wait before the index is listed again; it doubles, and up to half of it is
	// added at random, so that dispatchers do not come back all at once.
	firstDelay   = 100 * time.Millisecond
	longestDelay = 10 * time.Second
	// steady is how long a session must have lasted for the next to begin at once.
	steady = time.Second
	// callTimeout bounds one request.
	callTimeout = 30 * time.Second
	// watchTimeout is when a watch ends and begins anew; up to as much is added at random.
	watchTimeout = 5 * time.Minute
	// parallelGets is how many shards are got at once.
	parallelGets = 8
)

// Secrets is what a Source needs of a namespace's.
type Secrets interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Secret, error)
	List(ctx context.Context, options metav1.ListOptions) (*corev1.SecretList, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// Config is what a Source works with.
type Config struct {
	// Secrets are those of the dispatcher's namespace. The client's rate limit must leave room for a whole table's
	// shards at once.
	Secrets Secrets
	// Dispatcher is the name of the WebhookDispatcher.
	Dispatcher string
	// LastGood keeps the table on disk; nil if it is not kept.
	LastGood *routing.LastGood
	Log      logr.Logger
}

// Source reads the routing table from a cluster. It is a routing.Source.
type Source struct {
	cfg     Config
	shards  map[string]shard // by the name of their Secret: those of the last table, and what was got for the next
	current *routing.Index   // of the table that was delivered last; nil before the first of the API server's
	saved   bool             // that table is on disk
}

// shard is a shard as it was read last.
type shard struct {
	hash   string // "" for an empty one
	routes []*routing.Route
}

// New returns the source of the given dispatcher's table.
func New(cfg Config) *Source { return &Source{cfg: cfg, shards: make(map[string]shard)} }

// errAhead says that a shard is not the one that the index names: the manager is writing them just now.
var errAhead = errors.New("a shard is not the one that the index names")

// Run follows the table until ctx ends; see routing.Source.
func (s *Source) Run(ctx context.Context, deliver func(*routing.Table)) error {
	s.load(deliver)
	delay := firstDelay
	for {
		start := time.Now()
		progress, err := s.session(ctx, deliver)
		if ctx.Err() != nil {
			return nil
		}
		if progress || time.Since(start) > steady {
			delay = firstDelay
		}
		if errors.Is(err, errAhead) {
			s.cfg.Log.Info("Routing table is being written, reading it again")
		} else if err != nil {
			s.cfg.Log.Error(err, "Routing table not read, trying again", "secret", routing.IndexName(s.cfg.Dispatcher))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay + rand.N(delay/2)):
		}
		delay = min(2*delay, longestDelay)
	}
}

// load delivers the last good table, which is what there is until the API server answers.
func (s *Source) load(deliver func(*routing.Table)) {
	if s.cfg.LastGood == nil {
		return
	}
	index, blobs, err := s.cfg.LastGood.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for i, blob := range blobs {
		if err == nil {
			s.shards[s.name(index, i)], err = decode(blob)
		}
	}
	if err == nil {
		err = s.deliver(deliver, index.Revision, true)
	}
	if err != nil {
		clear(s.shards)
		s.cfg.Log.Error(err, "Last good routing table ignored")
	}
}

// session lists the index and watches it until the watch ends or something fails. progress is set if a table was
// delivered.
func (s *Source) session(ctx context.Context, deliver func(*routing.Table)) (progress bool, err error) {
	timeout := watchTimeout + rand.N(watchTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout+2*callTimeout) // for a server that has gone without a word
	defer cancel()
	version, index, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	if index == nil {
		s.cfg.Log.Info("No routing table yet, or none any more: keeping the last one", "secret", routing.IndexName(s.cfg.Dispatcher))
	} else if progress, err = s.apply(ctx, index, deliver); err != nil {
		return progress, err
	}
	seconds := int64(timeout / time.Second)
	options := s.options()
	options.ResourceVersion, options.TimeoutSeconds, options.AllowWatchBookmarks = version, &seconds, true
	w, err := s.cfg.Secrets.Watch(ctx, options)
	if err != nil {
		return progress, unlessExpired(fmt.Errorf("watch the index: %w", err))
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		applied, err := s.handle(ctx, event, deliver)
		progress = progress || applied
		if err != nil {
			return progress, err
		}
	}
	return progress, nil
}

func (s *Source) handle(ctx context.Context, event watch.Event, deliver func(*routing.Table)) (applied bool, err error) {
	switch event.Type {
	case watch.Added, watch.Modified:
		secret, ok := event.Object.(*corev1.Secret)
		if !ok {
			return false, fmt.Errorf("watch the index: got a %T", event.Object)
		}
		return s.apply(ctx, secret, deliver)
	case watch.Deleted:
		s.cfg.Log.Info("Routing table was deleted: keeping the last one", "secret", routing.IndexName(s.cfg.Dispatcher))
	case watch.Error:
		return false, unlessExpired(fmt.Errorf("watch the index: %w", apierrors.FromObject(event.Object)))
	case watch.Bookmark: // not asked for
	}
	return false, nil
}

// unlessExpired returns nil for an error that only says to list anew.
func unlessExpired(err error) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return nil
	}
	return err
}

func (s *Source) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, routing.IndexName(s.cfg.Dispatcher)).String()}
}

// list returns the index, nil if there is none, and the version to watch from.
func (s *Source) list(ctx context.Context) (version string, index *corev1.Secret, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := s.cfg.Secrets.List(ctx, s.options())
	if err != nil {
		return "", nil, fmt.Errorf("list the index: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Name == routing.IndexName(s.cfg.Dispatcher) {
			index = &list.Items[i]
		}
	}
	return list.ResourceVersion, index, nil
}

// apply reads what the index names, and delivers it if it is another table.
func (s *Source) apply(ctx context.Context, secret *corev1.Secret, deliver func(*routing.Table)) (applied bool, err error) {
	index, err := routing.DecodeIndex(secret.Data[routing.IndexKey])
	if err != nil {
		return false, err
	}
	same := s.current != nil && s.current.Revision == index.Revision && maps.Equal(s.current.Shards, index.Shards)
	if same && s.saved {
		return false, nil
	}
	blobs, err := s.update(ctx, index)
	if err != nil {
		return false, err
	}
	s.save(ctx, index, blobs)
	if same {
		return false, nil
	}
	if err := s.deliver(deliver, index.Revision, false); err != nil {
		return false, err
	}
	s.current = index
	return true, nil
}

func (s *Source) deliver(deliver func(*routing.Table), revision int64, stale bool) error {
	var routes []*routing.Route
	for _, name := range slices.Sorted(maps.Keys(s.shards)) {
		routes = append(routes, s.shards[name].routes...)
	}
	table, err := routing.NewTable(routes)
	if err != nil {
		return err
	}
	table.Revision, table.Stale = revision, stale
	deliver(table)
	return nil
}

// save writes the table to disk before it is delivered: no event is matched by a route that a restart would not find.
func (s *Source) save(ctx context.Context, index *routing.Index, blobs map[int][]byte) {
	if s.cfg.LastGood == nil {
		s.saved = true
		return
	}
	err := s.cfg.LastGood.Save(index, func(i int) ([]byte, error) {
		if blob, ok := blobs[i]; ok {
			return blob, nil
		}
		return s.get(ctx, s.name(index, i)) // an earlier table's save failed
	})
	s.saved = err == nil
	if err != nil {
		s.cfg.Log.Error(err, "Routing table not saved, trying again later")
	}
}
