package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// world runs a history.
type world struct {
	history    *history
	planted    planted
	plants     atomic.Int64
	beats      *atomic.Int64 // grow as time passes
	folder     string        // an empty one of the real file system, which the dispatcher's options have to name
	kubeconfig string
	begin      time.Time

	network   *network
	lives     *lives
	model     *model
	machine   *machine
	cluster   *apiServer
	keys      *keyring
	endpoints [][]*endpoint
	clients   []*http.Client
	serving   sync.WaitGroup
	working   sync.WaitGroup // producers, and what ends later
	turns     map[chain]chan struct{}

	mu     sync.Mutex
	found  []string // violations
	broken chan struct{}
	log    []string
	last   map[chain]*published // acknowledged last
}

func newWorld(h *history, plant planted, folder string) (*world, error) {
	w := &world{
		history: h, planted: plant, folder: folder, begin: time.Now(), network: newNetwork(h.seed),
		turns: map[chain]chan struct{}{}, broken: make(chan struct{}), last: map[chain]*published{},
	}
	w.model = newModel(w)
	w.machine = &machine{world: w, mem: vfs.NewCrashableMem(), free: plenty}
	var err error
	if w.lives, err = newLives(h, plant); err != nil {
		return nil, err
	}
	if w.cluster, err = w.newAPIServer(); err != nil {
		return nil, err
	}
	if w.keys, err = newKeyring(h.sealed, folder); err != nil {
		return nil, err
	}
	if w.kubeconfig, err = kubeconfig(folder); err != nil {
		return nil, err
	}
	for i, t := range h.tenants {
		w.endpoints = append(w.endpoints, nil)
		for j := range t.subs {
			e, err := w.newEndpoint(i, j)
			if err != nil {
				return nil, err
			}
			w.endpoints[i] = append(w.endpoints[i], e)
		}
		source := fmt.Sprintf("10.1.%d.1:40000", i)
		w.clients = append(w.clients, &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return w.network.dial(ctx, "producers", source, address)
			},
			IdleConnTimeout: 30 * time.Second,
		}})
	}
	return w, nil
}

// violated notes that a promise was broken, and ends the world.
func (w *world) violated(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.found) == 0 {
		close(w.broken)
	}
	if len(w.found) < 20 {
		w.found = append(w.found, fmt.Sprintf("at %v: ", time.Since(w.begin))+fmt.Sprintf(format, args...))
	}
}

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%v ", time.Since(w.begin))+fmt.Sprintf(format, args...))
}

func (w *world) producer(tenant int) *http.Client { return w.clients[tenant] }

// after does something later, unless the world has ended.
func (w *world) after(d time.Duration, do func()) {
	w.working.Go(func() {
		select {
		case <-time.After(d):
			do()
		case <-w.broken:
		}
	})
}

// run lets everything happen, then lets all come to rest, and judges.
func (w *world) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	running.Go(w.machine.run)
	defer func() {
		cancel()
		w.heal()
		w.machine.finish()
		running.Wait()
		w.working.Wait()
		for _, c := range w.clients {
			c.CloseIdleConnections()
		}
		for _, row := range w.endpoints {
			for _, e := range row {
				e.feel("", 0)
				_ = e.server.Close()
			}
		}
		_ = w.cluster.server.Close()
		w.serving.Wait()
		<-time.After(2 * synTimeout) // what a client began to dial and does not want any more
		if left := w.network.open(); left > 0 {
			w.violated("budget: %d connections are left", left)
		}
	}()
	running.Go(func() { w.watch(ctx) })
	running.Go(func() { w.beat(ctx) })
	for _, s := range w.history.steps {
		if !w.until(s.at) {
			return nil
		}
		w.do(ctx, s)
	}
	if !w.until(time.Duration(w.history.days) * day) {
		return nil
	}
	w.heal()
	return w.rest(ctx)
}

// until waits for a moment, and returns false if a promise was broken before.
func (w *world) until(at time.Duration) bool {
	select {
	case <-w.broken:
		return false
	default:
	}
	select {
	case <-time.After(at - time.Since(w.begin)):
		return true
	case <-w.broken:
		return false
	}
}

// beat shows that time passes.
func (w *world) beat(ctx context.Context) {
	for {
		w.beats.Add(1)
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}

// watch looks now and again for what takes too long.
func (w *world) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Minute):
		}
		for _, problem := range []string{w.model.late(time.Now()), w.machine.late()} {
			if problem != "" {
				w.violated("%s", problem)
			}
		}
	}
}

// heal ends all that is wrong.
func (w *world) heal() {
	w.machine.heal()
	w.network.set(apiAddress, weather{})
	w.network.set(clusterAddress, weather{})
	w.cluster.fail(0)
	for i, row := range w.endpoints {
		for j, e := range row {
			w.network.set(endpointAddress(i, j), weather{})
			e.feel("", 0)
		}
	}
}

// rest waits until nothing is left to do, and judges.
func (w *world) rest(ctx context.Context) error {
	const patience, look = 36 * time.Hour, 20 * time.Minute
	var waiting []listed
	var err error
	for range int(patience / look) {
		if !w.until(time.Since(w.begin) + look) {
			return nil
		}
		waiting, err = w.restless(ctx)
		if err == nil && len(waiting) == 0 && w.model.unanswered() == 0 {
			return w.judge(ctx)
		}
	}
	if n := w.model.unanswered(); n > 0 {
		w.violated("unanswered: %d events are still published although all is well", n)
		return nil
	}
	if err != nil {
		w.violated("down: at rest, the API does not answer: %v", err)
		return nil
	}
	w.violated("stuck: %d deliveries wait although all is well, such as %+v", len(waiting), waiting[0])
	return nil
}

// do makes a step happen. It takes no time.
func (w *world) do(ctx context.Context, s step) {
	switch s.do {
	case publish:
		w.working.Go(func() { w.publish(ctx, s) })
	case repeat:
		w.working.Go(func() { w.repeat(ctx, s) })
	case remove:
		w.lives.remove(s.tenant, s.sub)
	case add:
		w.lives.add(s.tenant, s.sub)
	case rotate:
		w.lives.rotate(s.tenant, s.sub)
	case mood:
		w.endpoints[s.tenant][s.sub].feel(s.how, s.lasts)
	case weatherOf:
		w.network.set(s.target(), s.weather)
		w.after(s.lasts, func() { w.network.set(s.target(), weather{}) })
	case cut:
		w.network.cut(s.target())
	case outage:
		w.cluster.fail(s.lasts)
	case revoke:
		w.cluster.revoke(s.tenant)
	case trespass:
		w.working.Go(func() { w.trespass(s) })
	case operate:
		w.working.Go(func() { w.operate(ctx, s) })
	case rekey:
		if err := w.keys.change(); err != nil {
			w.violated("keys: %v", err)
		}
	case disks:
		w.machine.trouble(s)
	case stop:
		w.machine.stop(s)
	case crash:
		w.machine.crash(s)
	}
}

// turn waits for what is being published about a resource; the result ends one's own turn.
func (w *world) turn(ctx context.Context, c chain) (func(), bool) {
	w.mu.Lock()
	before := w.turns[c]
	mine := make(chan struct{})
	w.turns[c] = mine
	w.mu.Unlock()
	if before != nil {
		select {
		case <-before:
		case <-ctx.Done():
			close(mine)
			return nil, false
		}
	}
	return func() { close(mine) }, true
}

// publish is a producer that publishes, all again under the same ids until it has its answer.
func (w *world) publish(ctx context.Context, s step) {
	c := chain{s.tenant, s.n}
	done, ok := w.turn(ctx, c)
	if !ok {
		return
	}
	defer done()
	var all []*published
	for i := range s.count {
		all = append(all, w.newEvent(s, i))
	}
	for _, e := range all {
		w.model.begins(e)
	}
	w.send(ctx, all, false)
}

func (w *world) newEvent(s step, i int) *published {
	e := &published{
		id: fmt.Sprintf("e-%d-%d-%d-%d", s.tenant, s.n, s.at, i), kind: s.how, resource: []string{"appointment", "patient"}[s.n%2],
		tenant: s.tenant, number: s.n, chosen: (int(s.at)+i)%2 == 0, due: time.Now().Add(s.plan).Truncate(time.Second).UTC(),
	}
	data, err := json.Marshal(map[string]any{
		"resourceType": e.resource, "resourceId": fmt.Sprint("r", s.n), "tenantId": w.history.tenants[s.tenant].name, "chosen": e.chosen, "at": e.due, "scan": strings.Repeat("0123456789abcdef", s.size/16),
	})
	if err != nil {
		panic(err)
	}
	stamp := time.Now().Add(time.Duration(i)).UTC().Format(time.RFC3339Nano)
	e.body = fmt.Sprintf(`{"id":%q,"type":"%s.%s","timestamp":%q,"data":%s}`, e.id, e.resource, e.kind, stamp, data)
	return e
}

// repeat publishes again what was acknowledged lately.
func (w *world) repeat(ctx context.Context, s step) {
	w.mu.Lock()
	e := w.last[chain{s.tenant, s.n}]
	w.mu.Unlock()
	if e != nil && time.Since(e.first) < 18*time.Hour {
		w.send(ctx, []*published{e}, true)
	}
}

// send posts events until they are acknowledged.
func (w *world) send(ctx context.Context, all []*published, again bool) {
	body := all[0].body
	if len(all) > 1 {
		var bodies []string
		for _, e := range all {
			bodies = append(bodies, e.body)
		}
		body = "[" + strings.Join(bodies, ",") + "]"
	}
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		with := w.cluster.current(all[0].tenant)
		status := w.post(all[0].tenant, all[0].tenant, with.String(), body)
		switch {
		case status == http.StatusAccepted && again:
			w.violated("doubled: %s was acknowledged, and is accepted once more as another event", all[0].id)
			return
		case status == http.StatusAccepted || status == http.StatusOK:
			w.answered(all, again)
			return
		case status == http.StatusUnauthorized && w.cluster.current(all[0].tenant) != with: // it was revoked meanwhile
		case status/100 == 4 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
			w.violated("refused: %s was answered with %d", all[0].id, status)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-w.broken:
			return
		}
	}
}

func (w *world) answered(all []*published, again bool) {
	if again {
		return
	}
	for _, e := range all {
		w.model.accepts(e, 0)
	}
	newest := all[len(all)-1]
	if len(all) > 1 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[chain{newest.tenant, newest.number}] = newest
}

// post publishes from a producer's machine into a tenant's namespace. It returns the status of the answer, 0 if there is none.
func (w *world) post(from, tenant int, token, body string) int {
	url := "http://" + apiAddress + "/v1/namespaces/" + w.history.tenants[tenant].name + "/events"
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := w.producer(from).Do(request)
	if err != nil {
		return 0
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	if err != nil {
		return 0
	}
	return response.StatusCode
}
