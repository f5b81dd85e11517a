package storetest

import (
	"crypto/rand"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/sealed"
)

// identified is a store that says which one it is.
type identified interface{ ID() string }

// Sealed is the harness of the same stores with encryption on. The suite is the same, because a sealed store keeps the
// same promises.
func Sealed(harness Harness) Harness {
	return func(t testing.TB, settings Settings) Place {
		place := harness(t, settings)
		keeper, ring := &seedstest.Memory{}, KeyRing(t)
		open, expire, fill, measure := place.Open, place.Expire, place.Fill, place.Measure
		place.Open = func() (store.Store, error) {
			below, err := open()
			if err != nil {
				return nil, err
			}
			return Seal(below, keeper, ring), nil
		}
		place.Expire = func(s store.Store) error { return expire(s.(*sealed.Store).Below()) }
		if fill != nil {
			place.Fill = func(s store.Store, full bool) { fill(s.(*sealed.Store).Below(), full) }
		}
		if measure != nil {
			place.Measure = func(s store.Store) error { return measure(s.(*sealed.Store).Below()) }
		}
		return place
	}
}

// Seal returns the store with encryption on, as a dispatcher puts it together.
func Seal(below store.Store, keeper seeds.Keeper, ring *envelope.KeyRing) *sealed.Store {
	return sealed.New(below, seeds.New(seeds.Options{
		Keeper: keeper, Ring: ring, Store: below.(identified).ID(), Known: sealed.Known(below),
	}))
}

// KeyRing returns a ring with a random key.
func KeyRing(t testing.TB) *envelope.KeyRing {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	ring, err := envelope.NewKeyRing("test", map[string][]byte{"test": key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
