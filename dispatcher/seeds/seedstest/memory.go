// Package seedstest has a keeper of seeds for tests.
package seedstest

import (
	"bytes"
	"context"
	"sync"

	"github.com/clinikapi/eventflow/dispatcher/seeds"
)

// Memory is a seeds.Keeper for tests. The zero Memory is usable.
type Memory struct {
	mu      sync.Mutex
	records map[string]seeds.Record
	failure error
	calls   int
}

// Fail makes every call fail with err, until it is nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}

// Calls counts the calls so far.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// call runs f under the lock, unless calls fail.
func (m *Memory) call(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.records == nil {
		m.records = map[string]seeds.Record{}
	}
	if m.failure != nil {
		return m.failure
	}
	return f()
}

// Get implements seeds.Keeper.
func (m *Memory) Get(_ context.Context, tenant string) (r seeds.Record, err error) {
	err = m.call(func() error {
		found, ok := m.records[tenant]
		if r = found; !ok {
			return seeds.ErrNone
		}
		return nil
	})
	return r, err
}

// Create implements seeds.Keeper.
func (m *Memory) Create(_ context.Context, r seeds.Record) error {
	return m.call(func() error {
		if _, ok := m.records[r.Tenant]; ok {
			return seeds.ErrExists
		}
		m.records[r.Tenant] = r
		return nil
	})
}

// Replace implements seeds.Keeper.
func (m *Memory) Replace(_ context.Context, before, next seeds.Record) error {
	return m.call(func() error {
		if !bytes.Equal(m.records[before.Tenant].Seed, before.Seed) {
			return seeds.ErrExists
		}
		m.records[next.Tenant] = next
		return nil
	})
}

// Delete implements seeds.Keeper.
func (m *Memory) Delete(_ context.Context, tenant string) error {
	return m.call(func() error {
		delete(m.records, tenant)
		return nil
	})
}

// List implements seeds.Keeper.
func (m *Memory) List(_ context.Context, yield func(seeds.Record) error) error {
	var all []seeds.Record
	err := m.call(func() error {
		for _, r := range m.records {
			all = append(all, r)
		}
		return nil
	})
	for _, r := range all {
		if err == nil {
			err = yield(r)
		}
	}
	return err
}
