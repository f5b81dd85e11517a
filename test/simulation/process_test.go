package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/dispatcher"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// machine is what runs the dispatcher, and starts it again, as a kubelet does.
type machine struct {
	world *world

	mu      sync.Mutex
	mem     *vfs.MemFS
	free    uint64
	slow    time.Duration
	current *process // nil while none runs
	number  int
	down    time.Duration // how long the next one is waited for
	orphan  bool          // the last one did not end in order
	ending  bool
	well    time.Time // when the disk was changed last
	tidied  bool      // the disk was full
	ended   sync.WaitGroup
}

// process is one run of a dispatcher.
type process struct {
	name   string
	disk   *disk
	cancel context.CancelFunc
	store  store.Store   // as the dispatcher opened it
	gone   chan struct{} // closed once it counts as ended, whatever its goroutines do
	once   sync.Once
}

// restartPause is how long a process that ended by itself is not started again.
const restartPause = 10 * time.Second

// run starts one process after the other until the world ends.
func (m *machine) run() {
	for {
		p := m.start()
		if p == nil {
			return
		}
		<-p.gone
		m.mu.Lock()
		pause := m.down
		m.down = restartPause
		m.current = nil
		m.mu.Unlock()
		<-time.After(pause)
	}
}

func (m *machine) start() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending {
		return nil
	}
	m.number++
	p := &process{name: fmt.Sprint("dispatcher-", m.number), disk: newDisk(m.mem), gone: make(chan struct{})}
	p.disk.free, p.disk.lying = m.free, m.world.planted == earlyAck
	p.disk.fatal = func() { m.fatal(p, errLog) }
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	m.current, m.down = p, restartPause
	options := m.options(p)
	m.ended.Go(func() {
		err := dispatcher.Run(ctx, options)
		if err != nil {
			m.world.logf("%s ended: %v", p.name, err)
		}
		m.end(p, 100, nil)
	})
	return p
}

// end counts a process as ended: now, and with what of its disk. percent of what was not synced is there after.
func (m *machine) end(p *process, percent int, random *rand.Rand) {
	p.once.Do(func() {
		var left *vfs.MemFS
		if random != nil {
			left = p.disk.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random})
		}
		m.world.network.kill(p.name)
		m.world.model.isDown()
		m.mu.Lock()
		if left != nil {
			m.mem = left
		}
		m.orphan = left != nil
		m.mu.Unlock()
		p.cancel()
		close(p.gone)
	})
}

// crash ends the process at once, or after some writes. It does not run on, but its goroutines end as if it had been told
// to stop, on a disk and in a network that nobody sees.
func (m *machine) crash(s step) {
	m.mu.Lock()
	p := m.current
	m.mu.Unlock()
	if p == nil {
		return
	}
	random := rand.New(rand.NewPCG(m.world.history.seed, uint64(s.at)))
	kill := func() {
		m.mu.Lock()
		m.down = s.lasts
		m.mu.Unlock()
		m.end(p, s.count, random)
	}
	if s.n == 0 {
		kill()
		return
	}
	p.disk.change(func(d *disk) { d.crash, d.power = s.n, kill })
}

// stop ends the process in order.
func (m *machine) stop(s step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil {
		m.down = s.lasts
		m.world.model.isStopping()
		m.current.cancel()
	}
}

// fatal ends a dispatcher that cannot go on. What it wrote is there, some of what it did not sync is not.
func (m *machine) fatal(p *process, err error) {
	m.world.logf("%s cannot go on: %v", p.name, err)
	m.mu.Lock()
	seed := uint64(m.number)
	m.mu.Unlock()
	m.end(p, 50, rand.New(rand.NewPCG(m.world.history.seed, seed)))
}

// trouble does something to the disk, for a while.
func (m *machine) trouble(s step) {
	var heal func()
	switch s.how {
	case "slow":
		m.set(func() { m.slow = 2 * time.Second })
		heal = func() { m.slow = 0 }
	case "full":
		m.set(func() { m.free, m.tidied = 4<<20, true })
		heal = func() { m.free = plenty }
	case "no space":
		m.set(func() { m.free, m.tidied = 0, true })
		heal = func() { m.free = plenty }
	case "broken":
		m.mu.Lock()
		p := m.current
		m.mu.Unlock()
		if p != nil {
			p.disk.change(func(d *disk) { d.broken = s.n })
		}
		heal = func() {
			if m.current != nil {
				m.current.disk.change(func(d *disk) { d.broken = -1 })
			}
		}
	}
	m.world.model.faulty(s.lasts)
	m.world.after(s.lasts, func() { m.set(heal) })
}

// set changes how the disk is, and tells the process that runs.
func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	m.well = time.Now()
	if p := m.current; p != nil {
		p.disk.change(func(d *disk) { d.free = m.free })
	}
}

// slowness is how long the disk takes now.
func (m *machine) slowness() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slow
}

// late says that no process started in time although the disk is well.
func (m *machine) late() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	down := m.world.model.downSince()
	if down.IsZero() || m.free < plenty || m.slow > 0 || time.Since(down) < startTime || time.Since(m.well) < startTime {
		return ""
	}
	return fmt.Sprintf("down: no dispatcher has been ready since %v, and %d were started", down, m.number)
}

// heal makes everything well.
func (m *machine) heal() {
	m.set(func() {
		m.free, m.slow = plenty, 0
		if m.current != nil {
			m.current.disk.change(func(d *disk) { d.broken, d.crash = -1, -1 })
		}
	})
}

// finish stops the last process.
func (m *machine) finish() {
	m.mu.Lock()
	m.ending = true
	p := m.current
	m.mu.Unlock()
	if p != nil {
		p.cancel()
	}
	m.ended.Wait()
}

// opened is the store of the process that runs, nil if there is none.
func (m *machine) opened() store.Store {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		return nil
	}
	return m.current.store
}

func (m *machine) options(p *process) dispatcher.Options {
	w := m.world
	var jitter sync.Mutex
	random := luck(w.history.seed, "jitter", uint64(m.number))
	orphan := m.orphan
	return dispatcher.Options{
		Routes: w.folder, Store: "pebble:" + w.folder + "/data", Listen: apiAddress, OpsListen: opsAddress, IngestAuth: "kubernetes", Kubeconfig: w.kubeconfig, OutageGrace: ingest.MaxOutageGrace,
		EgressAllowHTTP: true, EgressAllowCIDRs: []string{endpointRange}, EgressMinTLSVersion: "VersionTLS12",
		MaxEventBytes: 1 << 20, AuditLevel: "None", AuditFile: "-", RetentionDelivered: w.history.keeps, RetentionFailed: keepAll,
		MaxMemory: 64 << 20, MaxInFlight: 64, MaxConnections: 256, Version: "simulated", Logger: logr.Discard(), DrainDelay: time.Second,
		Quota: w.history.quota, EncryptionKeys: w.keys.folder,
		Started: func(string, string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.current == p {
				w.model.isUp()
			}
		},
		Around: dispatcher.Surroundings{
			Listen: func(_ context.Context, _, address string) (net.Listener, error) {
				return w.network.listen(p.name, address)
			},
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				return w.network.dial(ctx, p.name, "10.0.0.1:40000", address)
			},
			DialCluster: func(ctx context.Context, _, address string) (net.Conn, error) {
				return w.network.dial(ctx, p.name, "10.0.0.1:41000", address)
			},
			FS: p.disk, Routes: w.lives, MeasurePause: time.Hour, SpacePause: 15 * time.Second,
			Fatal: func(err error) {
				w.violated("ended: a dispatcher cannot go on, and nobody knows why: %v", err)
				m.fatal(p, err)
				select {} // a process that exits runs nothing more
			},
			Store: func(opened store.Store) store.Store {
				m.mu.Lock()
				defer m.mu.Unlock()
				p.store = opened
				return worldStore{Store: opened, slow: m.slowness, bug: w.planted, orphan: orphan, count: &w.plants}
			},
			Jitter: func() float64 {
				jitter.Lock()
				defer jitter.Unlock()
				return random.Float64()
			},
		},
	}
}

var (
	// errUnfinished is what cannot be.
	errUnfinished = errors.New("the world did not come to rest")
	errLog        = errors.New("the log cannot be written")
)
