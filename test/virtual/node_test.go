package virtual

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// node is one dispatcher's parts, as package dispatcher puts them together.
type node struct {
	store   store.Store
	engine  *engine.Engine
	handler *ingest.Handler
	sender  *egress.Client
	cancel  context.CancelFunc
	done    chan struct{} // closed once the engine has ended
}

// start makes a dispatcher on a store, which delivers until the test ends.
func (c *clinic) start(s store.Store) *node {
	c.Helper()
	if c.watch != nil {
		s = c.watch(s)
	}
	n := &node{store: s, done: make(chan struct{})}
	var err error
	n.sender, err = egress.New(egress.Options{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		c.Fatal(err)
	}
	made, err := payload.New(payload.Options{Client: n.sender, Now: s.Now})
	if err != nil {
		c.Fatal(err)
	}
	n.engine = engine.New(engine.Options{Store: s, Sender: made, Now: s.Now, Logger: logr.Discard(), StopTimeout: time.Second})
	n.engine.Use(endpoints{c.table}, true)
	catalog, err := event.NewCatalog()
	if err != nil {
		c.Fatal(err)
	}
	deliveries, err := query.New(query.Options{Store: s, Resume: n.engine.Resume, Now: s.Now})
	if err != nil {
		c.Fatal(err)
	}
	n.handler, err = ingest.New(ingest.Options{
		Store: s, Routes: func() *routing.Table { return c.table }, Accept: n.engine.Accept, Deliveries: deliveries,
		Catalog: catalog, Authorizer: ingest.None{}, Now: s.Now, Logger: logr.Discard(),
	})
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
	n.cancel = cancel
	go func() {
		defer close(n.done)
		if err := n.engine.Run(ctx); err != nil && ctx.Err() == nil {
			c.Errorf("the engine ended: %v", err)
		}
	}()
	c.nodes = append(c.nodes, n)
	return n
}

// end stops a dispatcher in order.
func (n *node) end() {
	n.cancel()
	<-n.done
	n.sender.Close()
	_ = n.store.Close()
}

// endpoints are those of a table, as the engine takes them.
type endpoints struct{ table *routing.Table }

func (e endpoints) Endpoint(key event.SubscriptionKey) (*engine.Endpoint, bool) {
	route, ok := e.table.Get(key)
	if !ok {
		return nil, false
	}
	return route.Endpoint, true
}

// place is where a clinic's dispatchers keep what they know, and how they die.
type place interface {
	// begin starts the first dispatcher.
	begin(c *clinic)
	// kill ends the dispatcher that works without a word, and starts another on what is left.
	kill(c *clinic)
}

// keep is how long what ended is listed.
const keep = 720 * time.Hour

// embedded is a store on a disk that forgets what was not synced.
type embedded struct{ disk *vfs.MemFS }

func (p *embedded) begin(c *clinic) {
	p.disk = vfs.NewCrashableMem()
	p.open(c)
	c.Cleanup(func() { c.nodes[0].end() })
}

func (p *embedded) open(c *clinic) {
	s, err := pebble.Open("data", pebble.Options{FS: p.disk, Now: c.clock.now, Retention: pebble.Retention{Delivered: keep, Failed: keep}})
	if err != nil {
		c.Fatal(err)
	}
	c.start(s)
}

func (p *embedded) kill(c *clinic) {
	// In the hours before, outcomes have come to the disk: within 50 ms, or with the next event that is accepted.
	c.event("note.created", map[string]any{"id": "note_1"})
	p.disk = p.disk.CrashClone(vfs.CrashCloneCfg{})
	c.nodes[0].end() // on the disk that is no more
	c.nodes = nil
	p.open(c)
}

// everywhere runs a test in both places.
func everywhere(t *testing.T, run func(t *testing.T, p place)) {
	t.Helper()
	for name, p := range map[string]place{"embedded": &embedded{}, "shared": &shared{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, p)
		})
	}
}
