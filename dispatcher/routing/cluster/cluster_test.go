package cluster

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const canary = "c4n4ry"

// manager writes routing tables as the real one does.
type manager struct {
	t       *testing.T
	server  *apiServer
	entries map[string]*routing.Entry
	index   *routing.Index
	shards  map[int][]byte
}

func newManager(t *testing.T, server *apiServer) *manager {
	return &manager{t: t, server: server, entries: map[string]*routing.Entry{}, index: &routing.Index{}}
}

// set adds or changes a subscription.
func (m *manager) set(name, url string) {
	m.entries[name] = &routing.Entry{
		Identity: name, Namespace: "clinic-a", Name: name, Generation: 1, Patterns: []event.Pattern{event.All},
		URL: url, Keys: [][]byte{[]byte(canary + " signing key of plain text")}, Timeout: time.Second, MaxInFlight: 1,
		Retry: routing.Retry{Initial: time.Second, Max: time.Second, MaxAge: time.Second, Factor: 1},
	}
}

// encode makes the next revision.
func (m *manager) encode() (changed []int) {
	m.t.Helper()
	index, shards, err := routing.EncodeTable(m.index.Revision+1, slices.Collect(maps.Values(m.entries)))
	if err != nil {
		m.t.Fatal(err)
	}
	for i, hash := range index.Shards {
		if m.index.Shards[i] != hash {
			changed = append(changed, i)
		}
	}
	m.index, m.shards = index, shards
	return changed
}

func (m *manager) writeShards(shards []int) {
	for _, i := range shards {
		m.server.put(routing.ShardName("default", i), routing.ShardKey, m.shards[i])
	}
}

func (m *manager) writeIndex() {
	m.t.Helper()
	b, err := m.index.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	m.server.put("default-routes", routing.IndexKey, b)
}

func (m *manager) write() {
	m.t.Helper()
	m.writeShards(m.encode())
	m.writeIndex()
}

// follower runs a Source and keeps what it delivers.
type follower struct {
	t      *testing.T
	tables chan *routing.Table
	stop   func()

	mu  sync.Mutex
	log bytes.Buffer
}

func follow(t *testing.T, server *apiServer, lastGood *routing.LastGood) *follower {
	t.Helper()
	f := &follower{t: t, tables: make(chan *routing.Table, 64)}
	log := funcr.New(func(_, args string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		fmt.Fprintln(&f.log, args)
	}, funcr.Options{})
	source := New(Config{Secrets: server.client(t), Dispatcher: "default", LastGood: lastGood, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- source.Run(ctx, func(table *routing.Table) { f.tables <- table }) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if strings.Contains(f.log.String(), canary) {
			t.Errorf("the log shows a secret:\n%s", f.log.String())
		}
	})
	t.Cleanup(f.stop)
	return f
}

// logged waits until the log contains the text.
func (f *follower) logged(text string) {
	f.t.Helper()
	eventually(f.t, "the log to say "+text, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return strings.Contains(f.log.String(), text)
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// next returns the next table, and checks where its subscriptions' deliveries go: name=url.
func (f *follower) next(want ...string) *routing.Table {
	f.t.Helper()
	select {
	case table := <-f.tables:
		var got []string
		for route := range table.All() {
			got = append(got, route.Name+"="+route.Endpoint.Target.URL)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			f.t.Fatalf("revision %d routes %q, want %q", table.Revision, got, want)
		}
		return table
	case <-time.After(20 * time.Second):
		f.mu.Lock()
		defer f.mu.Unlock()
		f.t.Fatalf("no table was delivered; log:\n%s", f.log.String())
		return nil
	}
}

// nothing checks that no table waits to be looked at.
func (f *follower) nothing() {
	f.t.Helper()
	select {
	case table := <-f.tables:
		f.t.Errorf("revision %d was delivered", table.Revision)
	default:
	}
}

func TestClusterIsFollowed(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t)
	m := newManager(t, server)
	f := follow(t, server, nil)
	f.logged("No routing table yet")
	m.set("a", "https://a/1")
	m.set("c", "https://c/1")
	m.write()
	first := f.next("a=https://a/1", "c=https://c/1")
	if first.Revision != 1 || first.Stale {
		t.Errorf("revision %d, stale %v", first.Revision, first.Stale)
	}
	m.set("a", "https://a/2")
	m.write()
	second := f.next("a=https://a/2", "c=https://c/1")
	if routing.ShardOf("a") == routing.ShardOf("c") {
		t.Fatal("the test's subscriptions share a shard")
	}
	key := event.NewSubscriptionKey("c")
	before, _ := first.Get(key)
	if after, _ := second.Get(key); after != before {
		t.Error("a shard that did not change was read again")
	}
	if n := server.got()[routing.ShardName("default", routing.ShardOf("c"))]; n != 1 {
		t.Errorf("a shard that did not change was got %d times", n)
	}
	delete(m.entries, "c")
	m.write()
	f.next("a=https://a/2")
	delete(m.entries, "a")
	m.write()
	if empty := f.next(); empty.Revision != 4 {
		t.Errorf("revision %d, want 4", empty.Revision)
	}
}

func TestClusterSurvivesWatches(t *testing.T) {
	t.Parallel()
	for name, interrupt := range map[string]func(*apiServer){
		"ended":   func(a *apiServer) { a.cutWatches(false) },
		"expired": func(a *apiServer) { a.cutWatches(true) },
		"broken":  func(a *apiServer) { a.CloseClientConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(t)
			m := newManager(t, server)
			m.set("a", "https://a/0")
			m.write()
			f := follow(t, server, nil)
			f.next("a=https://a/0")
			for i := 1; i < 4; i++ {
				server.watched(t)
				interrupt(server)
				m.set("a", fmt.Sprint("https://a/", i))
				m.write()
				f.next(fmt.Sprint("a=https://a/", i))
			}
			f.nothing()
			f.stop()
			if name == "expired" && strings.Contains(f.log.String(), "not read") {
				t.Errorf("what is no failure was logged as one:\n%s", f.log.String())
			}
		})
	}
}

func TestClusterKeepsTheTableWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t)
	m := newManager(t, server)
	m.set("a", "https://a/1")
	m.write()
	f := follow(t, server, nil)
	f.next("a=https://a/1")
	server.watched(t)
	server.stop(true)
	f.logged("Routing table not read, trying again")
	m.set("a", "https://a/2")
	m.write()
	f.nothing()
	server.stop(false)
	f.next("a=https://a/2")
	server.put("default-routes", routing.IndexKey, nil)
	f.logged("deleted: keeping the last one")
	f.nothing()
	m.write()
	f.next("a=https://a/2")
}

func TestClusterWaitsForACompleteTable(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil  func(m *manager)
		wantIn string // the log
	}{
		"shard ahead": {func(m *manager) {
			index := m.index
			m.set("a", "https://a/ahead")
			shards := m.encode()
			m.writeShards(shards)
			ahead := m.index
			m.index = index
			m.writeIndex()
			m.index = ahead
		}, "being written"},
		"shard missing": {func(m *manager) {
			i := routing.ShardOf("a")
			m.server.put(routing.ShardName("default", i), routing.ShardKey, nil)
			m.writeIndex()
		}, "get Secret default-routes-"},
		"shard damaged": {func(m *manager) {
			m.server.put(routing.ShardName("default", routing.ShardOf("a")), routing.ShardKey, []byte("damaged"))
			m.writeIndex()
		}, "decode a shard"},
		"shard without its key": {func(m *manager) {
			m.server.put(routing.ShardName("default", routing.ShardOf("a")), "other", []byte("damaged"))
			m.writeIndex()
		}, "decode a shard"},
		"index damaged":   {func(m *manager) { m.server.put("default-routes", routing.IndexKey, []byte("damaged")) }, "decode the routing table's index"},
		"later format":    {func(m *manager) { m.server.put("default-routes", routing.IndexKey, []byte(`{"format":2}`)) }, "format 2 is not known"},
		"without its key": {func(m *manager) { m.server.put("default-routes", "other", []byte(`{}`)) }, "decode the routing table's index"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(t)
			m := newManager(t, server)
			m.set("a", "https://a/0")
			m.set("c", "https://c/0")
			m.write()
			f := follow(t, server, nil)
			f.next("a=https://a/0", "c=https://c/0")
			m.set("a", "https://a/1")
			m.set("c", "https://c/1")
			m.writeShards(m.encode())
			tc.spoil(m)
			f.logged(tc.wantIn)
			f.nothing()
			m.set("a", "https://a/2")
			m.encode()
			m.writeShards(slices.Collect(maps.Keys(m.shards)))
			m.writeIndex()
			f.next("a=https://a/2", "c=https://c/1")
		})
	}
}

func TestClusterStartsWithTheLastGoodTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := newAPIServer(t)
	m := newManager(t, server)
	m.set("a", "https://a/1")
	m.set("c", "https://c/1")
	m.write()
	f := follow(t, server, routing.NewLastGood(dir))
	f.next("a=https://a/1", "c=https://c/1")
	f.stop()

	server.stop(true)
	f = follow(t, server, routing.NewLastGood(dir))
	if table := f.next("a=https://a/1", "c=https://c/1"); !table.Stale || table.Revision != 1 {
		t.Errorf("stale %v, revision %d", table.Stale, table.Revision)
	}
	f.logged("trying again")
	server.stop(false)
	if table := f.next("a=https://a/1", "c=https://c/1"); table.Stale {
		t.Error("the API server's table is stale")
	}
	gets := 0
	for _, n := range server.got() {
		gets += n
	}
	if gets != 2 {
		t.Errorf("%d shards were got, want each once: the disk has them", gets)
	}
	delete(m.entries, "c")
	m.write()
	f.next("a=https://a/1")
	f.stop()

	f = follow(t, server, routing.NewLastGood(dir))
	if table := f.next("a=https://a/1"); !table.Stale || table.Revision != 2 {
		t.Errorf("stale %v, revision %d; want what was saved last", table.Stale, table.Revision)
	}
	f.next("a=https://a/1")
}

func TestClusterIgnoresADamagedLastGoodTable(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"index": func(dir string) error { return os.WriteFile(filepath.Join(dir, "index"), []byte("damaged"), 0o600) },
		"entry": func(dir string) error { // whole, but nothing that a route can be made of
			blob, err := routing.EncodeShard([]*routing.Entry{{Identity: "a"}})
			if err != nil {
				return err
			}
			index := &routing.Index{Revision: 9, Shards: map[int]string{routing.ShardOf("a"): routing.Hash(blob)}}
			return routing.NewLastGood(dir).Save(index, func(int) ([]byte, error) { return blob, nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			server := newAPIServer(t)
			m := newManager(t, server)
			m.set("c", "https://c/1")
			m.write()
			f := follow(t, server, routing.NewLastGood(dir))
			f.logged("Last good routing table ignored")
			f.next("c=https://c/1")
		})
	}
}

func TestClusterSavesLaterWhatCouldNotBeSaved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way
		t.Fatal(err)
	}
	server := newAPIServer(t)
	m := newManager(t, server)
	m.set("a", "https://a/1")
	m.write()
	lastGood := routing.NewLastGood(dir)
	f := follow(t, server, lastGood)
	f.next("a=https://a/1")
	f.logged("not saved")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	server.watched(t)
	server.cutWatches(false)
	eventually(t, "the table on disk", func() bool { _, _, err := lastGood.Load(); return err == nil })
	f.nothing()
}

func TestClusterReadsManyShards(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t)
	m := newManager(t, server)
	var want []string
	for i := range 500 {
		name := fmt.Sprintf("s%03d", i)
		m.set(name, "https://e/")
		want = append(want, name+"=https://e/")
	}
	m.write()
	f := follow(t, server, nil)
	f.next(want...)
	if len(server.got()) != routing.Shards {
		t.Errorf("%d shards were got, want %d", len(server.got()), routing.Shards)
	}
}
