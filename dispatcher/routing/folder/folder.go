package folder

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// pollInterval is how often the folder is looked at: with settle it keeps a change's delay under a second.
	pollInterval = 600 * time.Millisecond
	// slowestPoll and pollShare spare the processor where the system tells of changes by itself: a look takes at most
	// one part in pollShare of the time, as long as it comes that often.
	slowestPoll = 10 * time.Second
	pollShare   = 1000
	// gather is how long a notice waits for those that follow it.
	gather = 20 * time.Millisecond
	// longestUnsettled bounds how long a change waits for other files to settle. A file that moves disappears in one
	// place and appears in another, and must not look deleted in between.
	longestUnsettled = 500 * time.Millisecond
	// saveAgain is when a table that could not be saved is saved again.
	saveAgain = time.Minute
)

// Config is what a Source works with.
type Config struct {
	// Dir is the folder.
	Dir string
	// Policy by which its subscriptions are compiled.
	Policy routing.Policy
	// LastGood keeps the table on disk; nil if it is not kept.
	LastGood *routing.LastGood
	Log      logr.Logger
}

// Source reads the routing table from a folder. It is a routing.Source.
type Source struct {
	cfg     Config
	notices func(dir string) *notices // nil: none, only polling
	scanner scanner

	entries  map[string]*routing.Entry // by identity, as the routes
	routes   map[string]*routing.Route
	revision int64
	loaded   bool // entries are those of an earlier process

	delivered      bool
	changed        bool      // something is not in the table yet
	unsettledSince time.Time // zero while every file is settled
	unsaved        time.Time // when saving failed last; zero if it did not

	problems   []routing.Problem // as they were delivered last
	ignored    map[string]string // the kinds left alone, by file
	unreadable string            // why the folder could not be read, as it was logged
}

// New returns the source of the given folder.
func New(cfg Config) *Source {
	return &Source{
		cfg:     cfg,
		notices: newNotices,
		scanner: scanner{dir: cfg.Dir, files: make(map[string]*file)},
		ignored: make(map[string]string),
	}
}

// Run follows the folder until ctx ends; see routing.Source.
func (s *Source) Run(ctx context.Context, deliver func(*routing.Table)) error {
	s.load()
	var notices *notices
	if s.notices != nil {
		notices = s.notices(s.cfg.Dir)
	}
	defer notices.close()
	var last time.Time
	changes := notices.changes()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			changes = nil // one notice is enough: many must not put the look off
			timer.Reset(max(gather, settle-time.Since(last)))
		case <-timer.C:
			notices.follow()
			last = time.Now()
			timer.Reset(s.step(deliver, notices.active()))
			changes = notices.changes()
		}
	}
}

// load takes up the last good table, so that a manifest that is invalid by now has a last valid spec.
func (s *Source) load() {
	if s.cfg.LastGood == nil {
		return
	}
	index, shards, err := s.cfg.LastGood.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	entries := make(map[string]*routing.Entry)
	for _, shard := range shards {
		var decoded []*routing.Entry
		if err == nil {
			decoded, err = routing.DecodeShard(shard)
		}
		for _, entry := range decoded {
			entries[entry.Identity] = entry
		}
	}
	if err == nil {
		s.routes, err = routes(entries, nil, nil)
	}
	if err != nil {
		s.cfg.Log.Error(err, "Last good routing table ignored")
		return
	}
	s.entries, s.revision, s.loaded = entries, index.Revision, true
}

// step looks at the folder once, and tells when to look again. watched is set if the system tells of changes.
func (s *Source) step(deliver func(*routing.Table), watched bool) (wait time.Duration) {
	start := time.Now()
	changed, unsettled, err := s.scanner.scan()
	took := time.Since(start)
	if err != nil {
		s.folderFailed(err, deliver)
		return pollInterval
	}
	if s.unreadable != "" {
		s.cfg.Log.Info("Folder readable again", "folder", s.cfg.Dir)
		s.unreadable = ""
	}
	s.changed = s.changed || changed || !s.delivered || s.loaded
	if !unsettled {
		s.unsettledSince = time.Time{}
	} else if s.unsettledSince.IsZero() {
		s.unsettledSince = start
	}
	if s.changed && (!unsettled || time.Since(s.unsettledSince) >= longestUnsettled) {
		s.changed = false
		s.rebuild(deliver)
	}
	if !s.unsaved.IsZero() && time.Since(s.unsaved) >= saveAgain {
		s.save()
	}
	switch {
	case unsettled:
		return settle
	case watched:
		return min(max(pollInterval, pollShare*took), slowestPoll)
	default:
		return pollInterval
	}
}

// folderFailed keeps the last table: nothing is known of what a folder holds that cannot be read.
func (s *Source) folderFailed(err error, deliver func(*routing.Table)) {
	if s.unreadable != err.Error() {
		s.unreadable = err.Error()
		s.cfg.Log.Error(err, "Folder not readable, keeping the last routing table", "folder", s.cfg.Dir)
	}
	if s.loaded && !s.delivered {
		s.deliver(deliver, true)
	}
}

// rebuild compiles what the files declare, and delivers it if it is another table.
func (s *Source) rebuild(deliver func(*routing.Table)) {
	entries, problems := compile(s.scanner.files, s.cfg.Policy, s.entries)
	s.report(problems)
	built, err := routes(entries, s.entries, s.routes)
	if err != nil { // Compile makes no entry that makes no route
		s.cfg.Log.Error(err, "Routing table not built, keeping the last one")
		return
	}
	same := s.delivered && !s.loaded && maps.Equal(entries, s.entries)
	if same && slices.Equal(problems, s.problems) {
		return
	}
	s.entries, s.routes, s.problems, s.loaded = entries, built, problems, false
	if !same {
		s.revision++
		s.save()
	}
	s.deliver(deliver, incomplete(s.scanner.files))
}

func (s *Source) deliver(deliver func(*routing.Table), stale bool) {
	sorted := make([]*routing.Route, 0, len(s.routes))
	for _, identity := range slices.Sorted(maps.Keys(s.routes)) {
		sorted = append(sorted, s.routes[identity])
	}
	table, err := routing.NewTable(sorted)
	if err != nil {
		s.cfg.Log.Error(err, "Routing table not built, keeping the last one")
		return
	}
	table.Revision, table.Problems, table.Stale = s.revision, s.problems, stale
	s.delivered = true
	deliver(table)
}

// save writes the table to disk before it is delivered: no event is matched by a route that a restart would not find.
func (s *Source) save() {
	if s.cfg.LastGood == nil {
		return
	}
	index, shards, err := routing.EncodeTable(s.revision, slices.Collect(maps.Values(s.entries)))
	if err == nil {
		err = s.cfg.LastGood.Save(index, func(i int) ([]byte, error) { return shards[i], nil })
	}
	s.unsaved = time.Time{}
	if err != nil {
		s.unsaved = time.Now()
		s.cfg.Log.Error(err, "Routing table not saved, trying again later")
	}
}

// report logs the problems that are new, those that are gone, and what was left alone.
func (s *Source) report(problems []routing.Problem) {
	before, now := setOf(s.problems), setOf(problems)
	for _, p := range problems {
		if !before[p] {
			s.cfg.Log.Error(nil, "Manifest not usable", "file", p.Source, "namespace", p.Namespace, "name", p.Name, "reason", p.Reason, "message", p.Message)
		}
	}
	for _, p := range s.problems {
		if !now[p] {
			s.cfg.Log.Info("Manifest's problem gone", "file", p.Source, "namespace", p.Namespace, "name", p.Name, "reason", p.Reason)
		}
	}
	for name, f := range s.scanner.files {
		if f.content == nil {
			continue
		}
		kinds := strings.Join(slices.Compact(slices.Sorted(slices.Values(f.content.ignored))), ",")
		if kinds != "" && s.ignored[name] != kinds {
			s.cfg.Log.Info("Manifests of other kinds left alone", "file", name, "kinds", kinds)
		}
		s.ignored[name] = kinds
	}
}

func setOf(problems []routing.Problem) map[routing.Problem]bool {
	set := make(map[routing.Problem]bool, len(problems))
	for _, p := range problems {
		set[p] = true
	}
	return set
}
