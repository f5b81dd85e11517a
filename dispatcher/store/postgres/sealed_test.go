package postgres_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/sealed"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// TestUnracedConformanceSealed: the same promises with encryption on.
func TestUnracedConformanceSealed(t *testing.T) {
	storetest.Unraced(t)
	t.Parallel()
	storetest.Run(t, storetest.Sealed(shared))
}

// publishMarkers appends an event that fails, one that is planned, and one that nobody wants, with the marker wherever a
// producer can put it, and returns what a guess could be checked with.
func publishMarkers(t *testing.T, s store.Store, marker string) (hashes [][]byte) {
	t.Helper()
	tenant := "tenant-of-" + marker[:5]
	sub := &delivery.Subscription{Key: event.NewSubscriptionKey(tenant), Tenant: tenant, Name: "billing"}
	key, err := plan.NewKey(marker)
	if err != nil {
		t.Fatal(err)
	}
	digest := [16]byte([]byte(marker + "................"))
	var events []store.NewEvent
	for _, id := range []string{"-failed", "-planned", "-unmatched"} {
		events = append(events, store.NewEvent{Digest: digest, Fanout: delivery.Fanout{Event: &delivery.Event{
			Tenant: tenant, ID: marker + id, Type: "patient.created", Body: []byte(`{"data":"` + marker + `"}`),
			Traceparent: "00-" + marker + "-01",
		}}})
	}
	events[0].Subscriptions = []*delivery.Subscription{sub}
	events[1].Plans = []store.Plan{{Subscription: sub, Key: key, Decision: plan.Decision{At: time.Now().Add(time.Hour)}}}
	_, fanouts, err := s.Append(t.Context(), events)
	if err != nil || len(fanouts) != 1 {
		t.Fatalf("%d fan-outs, %v", len(fanouts), err)
	}
	if e, err := s.Event(t.Context(), fanouts[0].Event.Key); err != nil || string(e.Body) != `{"data":"`+marker+`"}` {
		t.Fatalf("%+v, %v", e, err)
	}
	records, err := s.List(t.Context(), store.Query{Tenant: tenant, Subscription: sub.Name, Key: key, Limit: 9})
	if err != nil || len(records) != 1 || records[0].EventID != marker+"-planned" {
		t.Fatalf("%+v, %v", records, err)
	}
	return [][]byte{[]byte(marker), digest[:], key[:]}
}

// TestNothingInTheDatabase: what a producer sent is in no file of the database's, tables and write-ahead log included. The
// same in the clear is found.
func TestNothingInTheDatabase(t *testing.T) {
	t.Parallel()
	below, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL("postgres"), Schema: newSchema()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := below.Close(); err != nil {
			t.Error(err)
		}
	})
	secret := publishMarkers(t, storetest.Seal(below, &seedstest.Memory{}, storetest.KeyRing(t)), "5EALED-MARKER-c1")
	open := publishMarkers(t, sealed.New(below, nil), "PLAIN0-MARKER-c2")
	if err := server.Exec(t.Context(), "postgres", "CHECKPOINT"); err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	err = filepath.WalkDir(server.Data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // other tests make and drop tables meanwhile
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, needle := range append(secret, open...) {
			found[string(needle)] += bytes.Count(content, needle)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range secret {
		if n := found[string(secret[i])]; n > 0 {
			t.Errorf("%q is found %d times", secret[i], n)
		}
		if found[string(open[i])] == 0 {
			t.Errorf("%q, which is in the clear, is not found: the search does not work", open[i])
		}
	}
}
