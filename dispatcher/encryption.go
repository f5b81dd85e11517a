package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/cluster"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/sealed"
)

const (
	// seedsPause is how often keys are read again, and seeds wrapped by an earlier key are wrapped anew.
	seedsPause = time.Minute
	// shredPause is how often the next 100 namespaces are looked at, whether they are gone.
	shredPause = 10 * time.Minute
	// seedsTimeout bounds one round of that.
	seedsTimeout = 30 * time.Second
	// seedsKubernetes is the word for Secrets of the dispatcher's namespace.
	seedsKubernetes = "kubernetes"
	// seedsFolder is where seeds are kept without a cluster, if nothing else is said: within that of the keys.
	seedsFolder = "seeds"
)

// encryption is what encrypts the store and the last good table. It is nil where nothing is encrypted.
type encryption struct {
	dir      string // of the keys
	keeper   seeds.Keeper
	ring     atomic.Pointer[envelope.KeyRing]
	cache    *seeds.Cache
	lastGood *routing.LastGood // nil if it is not kept
	shredder *seeds.Shredder   // nil without Kubernetes
	looked   time.Time         // when the shredder looked last

	tenants, locked, failures atomic.Int64 // as the last round found
}

// checkEncryption names the flag to mend.
func (o *Options) checkEncryption(pebbleDir string) error {
	if o.EncryptionKeys == "" {
		if o.EncryptionSeeds != "" {
			return errors.New("--encryption-seeds needs --encryption-keys")
		}
		return nil
	}
	if o.EncryptionSeeds == seedsKubernetes && o.Routes != routesKubernetes {
		return fmt.Errorf("--encryption-seeds=%s needs --routes=%s", seedsKubernetes, routesKubernetes)
	}
	for flag, dir := range map[string]string{"encryption-keys": o.EncryptionKeys, "encryption-seeds": o.EncryptionSeeds} {
		for _, data := range []string{pebbleDir, o.StateDir} {
			if dir != "" && dir != seedsKubernetes && data != "" && liesIn(data, dir) {
				return fmt.Errorf("--%s=%q is within the folder of what is encrypted: a copy of the volume would hold both; put it on another volume", flag, dir)
			}
		}
	}
	return nil
}

// liesIn reports whether dir is root, or lies below it.
func liesIn(root, dir string) bool {
	root, errRoot := filepath.Abs(root)
	dir, errDir := filepath.Abs(dir)
	relative, err := filepath.Rel(root, dir)
	return errors.Join(errRoot, errDir, err) == nil && relative != ".." && !strings.HasPrefix(relative, ".."+string(filepath.Separator))
}

// prepareEncryption reads the keys, so that a dispatcher without usable ones does not start.
func (d *dispatcher) prepareEncryption() error {
	if d.EncryptionKeys == "" {
		return nil
	}
	ring, err := envelope.LoadKeyRing(d.EncryptionKeys)
	if err != nil {
		return fmt.Errorf("--encryption-keys: %w", err)
	}
	e := &encryption{dir: d.EncryptionKeys}
	e.ring.Store(ring)
	if e.keeper, err = d.newKeeper(); err != nil {
		return fmt.Errorf("--encryption-seeds: %w", err)
	}
	d.encryption = e
	d.registerEncryption()
	return nil
}

// newKeeper returns where the seeds are.
func (d *dispatcher) newKeeper() (seeds.Keeper, error) {
	dir := d.EncryptionSeeds
	if dir == seedsKubernetes {
		return cluster.New(d.clients.Secrets(d.Namespace), d.Name), nil
	}
	if dir == "" {
		dir = filepath.Join(d.EncryptionKeys, seedsFolder)
	}
	return seeds.NewFolder(dir)
}

// identified is a store that says which one it is; both do.
type identified interface{ ID() string }

// encrypt returns the store that seals what goes to below. Without keys, it opens nothing that is sealed.
func (d *dispatcher) encrypt(below store.Store) (*sealed.Store, error) {
	if d.encryption == nil {
		return sealed.New(below, nil), nil
	}
	named, ok := below.(identified)
	if !ok {
		return nil, errors.New("encrypt the store: it has no id")
	}
	e := d.encryption
	e.cache = seeds.New(seeds.Options{Keeper: e.keeper, Ring: e.ring.Load(), Store: named.ID(), Known: sealed.Known(below), Namespace: d.namespaceOf})
	if d.Routes == routesKubernetes {
		e.shredder = d.newShredder(below)
	}
	return sealed.New(below, e.cache), nil
}

// keepSeeds takes rotated keys over, until ctx ends.
func (d *dispatcher) keepSeeds(ctx context.Context) {
	again := time.NewTicker(seedsPause)
	defer again.Stop()
	for {
		d.refreshSeeds(ctx)
		d.shred(ctx)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// refreshSeeds reads the keys anew, and wraps with the current one what an earlier one has wrapped.
func (d *dispatcher) refreshSeeds(ctx context.Context) {
	e, log := d.encryption, d.Logger.WithName("encryption")
	ctx, cancel := context.WithTimeout(ctx, seedsTimeout)
	defer cancel()
	ring, err := envelope.LoadKeyRing(e.dir)
	if err == nil {
		if before := e.ring.Swap(ring); before.Current() != ring.Current() {
			log.Info("Another encryption key wraps from now on", "key", ring.Current(), "before", before.Current())
		}
		e.cache.Use(ring)
	}
	found, refreshed := e.cache.Refresh(ctx)
	err = errors.Join(err, refreshed)
	if e.lastGood != nil {
		err = errors.Join(err, e.lastGood.Reseal())
	}
	if err != nil {
		if ctx.Err() == nil {
			e.failures.Add(1)
			log.Error(err, "The encryption keys could not be looked after; trying again", "pause", seedsPause)
		}
		return
	}
	e.tenants.Store(int64(found.Tenants))
	e.locked.Store(int64(found.Locked))
	if found.Rewrapped > 0 || found.Locked > 0 {
		log.Info("Seeds were wrapped by the current key", "key", ring.Current(), "rewrapped", found.Rewrapped, "lackingTheirKey", found.Locked)
	}
}

// namespaceOf returns the name of the namespace that a tenant is, "" if nobody asked for it lately.
func (d *dispatcher) namespaceOf(tenant string) string {
	if d.namespaces == nil || d.Routes != routesKubernetes {
		return ""
	}
	return d.namespaces.nameOf(tenant)
}

// newShredder returns what deletes the seeds of namespaces that were deleted.
func (d *dispatcher) newShredder(below store.Store) *seeds.Shredder {
	return &seeds.Shredder{
		Keeper: d.encryption.keeper, Delete: d.encryption.cache.Delete, Now: time.Now,
		Gone: func(ctx context.Context, namespace, tenant string) (bool, error) {
			found, err := d.namespaces.server.Get(ctx, namespace, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("look for a namespace: %w", err)
			}
			return string(found.UID) != tenant, nil
		},
		Pending: func(ctx context.Context, tenant string) (bool, error) {
			records, err := below.List(ctx, store.Query{Tenant: tenant, State: delivery.Pending, Limit: 1})
			return len(records) > 0, err
		},
	}
}

// shred deletes the seeds of namespaces that are gone.
func (d *dispatcher) shred(ctx context.Context) {
	e, log := d.encryption, d.Logger.WithName("encryption")
	if e.shredder == nil || time.Since(e.looked) < shredPause {
		return
	}
	e.looked = time.Now()
	shredded, err := e.shredder.Round(ctx)
	if shredded > 0 {
		log.Info("The encryption keys of namespaces that are gone were deleted; what is stored of them cannot be read any more", "namespaces", shredded)
	}
	if err != nil && ctx.Err() == nil {
		log.Error(err, "Namespaces that are gone could not be looked for; trying again", "pause", shredPause)
	}
}

// registerEncryption registers what can be alerted on.
func (d *dispatcher) registerEncryption() {
	e := d.encryption
	for _, gauge := range []struct {
		prometheus.GaugeOpts
		of *atomic.Int64
	}{
		{prometheus.GaugeOpts{Name: "eventflow_encryption_tenants", Help: "Tenants that have a seed."}, &e.tenants},
		{prometheus.GaugeOpts{Name: "eventflow_encryption_locked_tenants", Help: "Tenants whose seed was wrapped by a key that is not there."}, &e.locked},
	} {
		d.registry.MustRegister(prometheus.NewGaugeFunc(gauge.GaugeOpts, func() float64 { return float64(gauge.of.Load()) }))
	}
	d.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "eventflow_encryption_failures_total", Help: "Rounds in which keys could not be read, or seeds not be wrapped anew.",
	}, func() float64 { return float64(e.failures.Load()) }))
}
