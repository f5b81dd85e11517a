package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/dispatcher/seeds"
)

// Shards is how many Secrets a dispatcher's seeds are in.
const Shards = 16

// tries is how often a write is tried while others write to the same Secret.
const tries = 8

// SecretNames returns the names of the Secrets of a dispatcher's seeds.
func SecretNames(dispatcher string) []string {
	names := make([]string, Shards)
	for i := range names {
		names[i] = fmt.Sprintf("eventflow-seeds-%s-%02d", dispatcher, i)
	}
	return names
}

// Secrets is what the keeper needs of a namespace's.
type Secrets interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Secret, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*corev1.Secret, error)
}

// Keeper is a seeds.Keeper in Secrets.
type Keeper struct {
	secrets Secrets
	shards  [Shards]shard
}

// shard is a Secret as it was read last. It holds 1 MiB at most, as the API server bounds it.
type shard struct {
	name string
	mu   sync.RWMutex
	data map[string][]byte // never changed
}

// New returns the keeper of a dispatcher's seeds.
func New(secrets Secrets, dispatcher string) *Keeper {
	k := &Keeper{secrets: secrets}
	for i, name := range SecretNames(dispatcher) {
		k.shards[i].name = name
	}
	return k
}

// place is where the tenant's record is: its Secret, and the key in the Secret's data.
func (k *Keeper) place(tenant string) (*shard, string) {
	sum := sha256.Sum256([]byte(tenant))
	return &k.shards[sum[0]%Shards], hex.EncodeToString(sum[:16])
}

// read reads a shard's Secret.
func (k *Keeper) read(ctx context.Context, s *shard) (*corev1.Secret, error) {
	secret, err := k.secrets.Get(ctx, s.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("the manager has not made the Secret %s yet: %w", s.name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the Secret %s: %w", s.name, err)
	}
	s.keep(secret)
	return secret, nil
}

func (s *shard) keep(secret *corev1.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = secret.Data
}

func (s *shard) kept(key string) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.data[key]
}

// decode reads what is kept of the tenant.
func decode(tenant string, text []byte) (seeds.Record, error) {
	if text == nil {
		return seeds.Record{}, seeds.ErrNone
	}
	r, err := seeds.Decode(text)
	if err == nil && r.Tenant != tenant {
		err = errors.New("a seed's record is another tenant's")
	}
	return r, err
}

// Get returns the tenant's record.
func (k *Keeper) Get(ctx context.Context, tenant string) (seeds.Record, error) {
	s, key := k.place(tenant)
	if text := s.kept(key); text != nil {
		return decode(tenant, text)
	}
	secret, err := k.read(ctx, s)
	if err != nil {
		return seeds.Record{}, err
	}
	return decode(tenant, secret.Data[key])
}

// change writes what next makes of the tenant's text, nil for none. It is called again when another was faster.
func (k *Keeper) change(ctx context.Context, tenant string, next func(text []byte) ([]byte, error)) error {
	s, key := k.place(tenant)
	for try := 1; ; try++ {
		secret, err := k.read(ctx, s)
		if err != nil {
			return err
		}
		text, err := next(secret.Data[key])
		if err != nil {
			return err
		}
		if text == nil && secret.Data[key] == nil {
			return nil
		}
		patch, err := patchOf(secret.ResourceVersion, key, text)
		if err != nil {
			return err
		}
		written, err := k.secrets.Patch(ctx, s.name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			s.keep(written)
			return nil
		}
		if !apierrors.IsConflict(err) || try == tries {
			return fmt.Errorf("write the Secret %s: %w", s.name, err)
		}
	}
}

// patchOf returns a merge patch (RFC 7396) that sets the key, or removes it if text is nil, while the Secret has the version.
func patchOf(version, key string, text []byte) ([]byte, error) {
	var value any // null
	if text != nil {
		value = text // as base64
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": version},
		"data":     map[string]any{key: value},
	})
	if err != nil {
		return nil, fmt.Errorf("encode a patch: %w", err)
	}
	return patch, nil
}

// Create keeps the record of a tenant that has none.
func (k *Keeper) Create(ctx context.Context, r seeds.Record) error {
	return k.change(ctx, r.Tenant, func(text []byte) ([]byte, error) {
		if text != nil {
			return nil, seeds.ErrExists
		}
		return r.Encode()
	})
}

// Replace keeps next in the place of before.
func (k *Keeper) Replace(ctx context.Context, before, next seeds.Record) error {
	return k.change(ctx, before.Tenant, func(text []byte) ([]byte, error) {
		if text == nil {
			return nil, seeds.ErrExists
		}
		r, err := decode(before.Tenant, text)
		if err == nil && !bytes.Equal(r.Seed, before.Seed) {
			err = seeds.ErrExists
		}
		if err != nil {
			return nil, err
		}
		return next.Encode()
	})
}

// Delete forgets the tenant's record.
func (k *Keeper) Delete(ctx context.Context, tenant string) error {
	return k.change(ctx, tenant, func([]byte) ([]byte, error) { return nil, nil })
}

// List reads all Secrets anew.
func (k *Keeper) List(ctx context.Context, yield func(seeds.Record) error) error {
	for i := range k.shards {
		secret, err := k.read(ctx, &k.shards[i])
		if err != nil {
			return err
		}
		for _, text := range secret.Data {
			r, err := seeds.Decode(text)
			if err == nil {
				err = yield(r)
			}
			if err != nil {
				return fmt.Errorf("list the seeds in the Secret %s: %w", secret.Name, err)
			}
		}
	}
	return nil
}
