package seeds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// The errors that a Keeper tells apart.
var (
	// ErrNone says that the tenant has no seed.
	ErrNone = errors.New("the tenant has no seed")
	// ErrExists says that another was faster: the tenant has a seed, or it is not the one that was to be replaced.
	ErrExists = errors.New("the tenant has another seed")
)

// Keeper keeps a record for each tenant: its wrapped seed. A write is durable on return. Methods are safe for concurrent use,
// also by several processes.
type Keeper interface {
	// Get returns the tenant's record, or ErrNone.
	Get(ctx context.Context, tenant string) (Record, error)
	// Create keeps the record of a tenant that has none, else it fails with ErrExists and changes nothing.
	Create(ctx context.Context, r Record) error
	// Replace keeps next in the place of before, or fails with ErrExists if that is not what is kept.
	Replace(ctx context.Context, before, next Record) error
	// Delete forgets the tenant's record. There need not be one.
	Delete(ctx context.Context, tenant string) error
	// List calls yield for each record, in any order, until it fails.
	List(ctx context.Context, yield func(Record) error) error
}

// Record is what a Keeper keeps of a tenant.
type Record struct {
	Tenant string `json:"tenant"`
	// Namespace is the name of the namespace that the tenant was when its seed was made; empty if that was not known.
	Namespace string `json:"namespace,omitempty"`
	// Seed is wrapped: what envelope.KeyRing.Wrap returned for the tenant.
	Seed []byte `json:"seed"`
}

// maxRecord bounds a record's text in bytes.
const maxRecord = 4 << 10

// Encode returns the record as a line of JSON.
func (r Record) Encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a seed's record: %w", err)
	}
	return append(text, '\n'), nil
}

// Decode reads what Encode wrote.
func Decode(text []byte) (Record, error) {
	var r Record
	if len(text) > maxRecord {
		return r, errors.New("decode a seed's record: it is too long")
	}
	if err := json.Unmarshal(text, &r); err != nil || len(r.Seed) == 0 {
		return Record{}, errors.New("decode a seed's record: it is damaged") // what JSON says may show a part of it
	}
	return r, nil
}
