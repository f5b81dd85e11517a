package sealed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/sealed"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an embedded store in a folder, and what encrypts it.
type fixture struct {
	*testing.T
	dir    string
	keeper *seedstest.Memory
	ring   *envelope.KeyRing
	below  *pebble.Store
	cache  *seeds.Cache
	*sealed.Store
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, dir: filepath.Join(t.TempDir(), "store"), keeper: &seedstest.Memory{}, ring: storetest.KeyRing(t)}
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *fixture) open() {
	f.Helper()
	below, err := pebble.Open(f.dir, pebble.Options{FreeReserve: -1})
	if err != nil {
		f.Fatal(err)
	}
	f.below = below
	f.cache = seeds.New(seeds.Options{Keeper: f.keeper, Ring: f.ring, Store: below.ID(), Known: sealed.Known(below)})
	f.Store = sealed.New(below, f.cache)
}

func (f *fixture) close() {
	f.Helper()
	if err := f.Store.Close(); err != nil {
		f.Error(err)
	}
}

// reopen forgets the cached keys, too.
func (f *fixture) reopen() {
	f.Helper()
	f.close()
	f.open()
}

const (
	clinic      = "6b3c9f0e-5a35-4f0e-9b0a-0f6c2b1f3d10"
	marker      = "MARKER-diagnosis-F32.1"
	markerID    = "MARKER-mrn-4711"
	markerKey   = "MARKER-appointment-0815"
	markerTrace = "00-4d41524b45522d7472616365aaaaaaaa-4d41524b45522d74-01"
)

var sub = &delivery.Subscription{Key: event.NewSubscriptionKey("u"), Tenant: clinic, Name: "billing", Ordered: true}

func key(t *testing.T, text string) plan.Key {
	t.Helper()
	k, err := plan.NewKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newEvent has markers wherever a producer can put some.
func newEvent(id string) store.NewEvent {
	return store.NewEvent{
		Fanout: delivery.Fanout{
			Event: &delivery.Event{
				Tenant: clinic, ID: id, Type: "patient.created", Traceparent: markerTrace,
				Body: []byte(`{"id":"` + id + `","data":{"diagnosis":"` + marker + `"}}`),
			},
			Order: 0x4d41524b4552, Subscriptions: []*delivery.Subscription{sub},
		},
		Digest: [16]byte([]byte("MARKERdigest....")),
	}
}

func (f *fixture) append(on store.Store, e store.NewEvent) []delivery.Fanout {
	f.Helper()
	answers, fanouts, err := on.Append(f.Context(), []store.NewEvent{e})
	if err != nil || len(answers) != 1 || answers[0].ID != e.Event.ID {
		f.Fatalf("%+v, %v", answers, err)
	}
	return fanouts
}

// needles are what must not be found: texts, and hashes that a guess could be checked with.
func needles(t *testing.T) map[string][]byte {
	t.Helper()
	k := key(t, markerKey)
	return map[string][]byte{
		"marker": []byte("MARKER"), "digest": []byte("MARKERdigest"), "order": []byte("\x4d\x41\x52\x4b\x45\x52"),
		"trace": []byte(markerTrace[3:20]), "key": k[:],
	}
}

// grep reads every file of the folder, logs and tables, and returns what was found of the needles, and how many bytes were
// read. A store that is open deletes files that nothing needs: then all is read again.
func grep(t *testing.T, dir string) (found map[string]int, read int) {
	t.Helper()
	for range 100 {
		found, read = map[string]int{}, 0
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			for name, needle := range needles(t) {
				found[name] += bytes.Count(content, needle)
			}
			read += len(content)
			return err
		})
		if err == nil {
			return found, read
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatal("files come and go")
	return nil, 0
}

// publishAll appends events that come to be in every place that a store has.
func (f *fixture) publishAll() {
	f.Helper()
	fanouts := f.append(f.Store, newEvent(markerID))
	d := fanouts[0].Delivery(sub)
	d.Event = nil
	attempt := &delivery.Attempt{Number: 1, Started: time.Now(), StatusCode: 500, Reason: delivery.ReasonStatusCode}
	if err := f.Record(f.Context(), []delivery.Outcome{{Delivery: d, Attempt: attempt, State: delivery.Failed, Epoch: 1}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.Replay(f.Context(), clinic, d.ID); err != nil {
		f.Fatal(err)
	}
	planned := newEvent(markerID + "-planned")
	planned.Subscriptions = nil
	planned.Plans = []store.Plan{{Subscription: sub, Key: key(f.T, markerKey), Decision: plan.Decision{At: time.Now().Add(time.Hour)}}}
	f.append(f.Store, planned)
	unmatched := newEvent(markerID + "-unmatched")
	unmatched.Subscriptions = nil
	f.append(f.Store, unmatched)
}

// TestNothingInTheFiles: what a producer sent is in no file of the store, log and tables included. The same events in the
// clear are found, so that the search is known to work.
func TestNothingInTheFiles(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publishAll()
	check := func(when string) {
		t.Helper()
		found, read := grep(t, f.dir)
		for name, n := range found {
			if n > 0 {
				t.Errorf("%s: %s is found %d times", when, name, n)
			}
		}
		if read < 2000 {
			t.Errorf("%s: only %d bytes were read", when, read)
		}
	}
	check("in the log")
	f.reopen() // turns the log into tables
	check("in the tables")
	if records, err := f.List(t.Context(), store.Query{Tenant: clinic, Limit: 10}); err != nil || len(records) != 2 || !strings.HasPrefix(records[0].EventID, markerID) {
		t.Errorf("%+v, %v", records, err)
	}

	plain := newFixture(t)
	plain.Store = sealed.New(plain.below, nil)
	plain.publishAll()
	if found, _ := grep(t, plain.dir); len(found) != len(needles(t)) || found["marker"]*found["digest"]*found["order"]*found["trace"]*found["key"] == 0 {
		t.Errorf("in the clear: %v", found)
	}
}

// TestShredding: once the seed is deleted, nothing opens, with every key that is left and in a copy that was made before.
func TestShredding(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := f.append(f.Store, newEvent(markerID))[0].Delivery(sub)
	f.close()
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.open()
	if err := f.cache.Delete(t.Context(), clinic); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{f.dir, backup} {
		f.close()
		f.dir = dir
		f.open()
		for range 2 { // the second time after the tenant got another seed
			if e, err := f.Event(t.Context(), d.ID.Event); !errors.Is(err, store.ErrErased) || e != nil {
				t.Errorf("%s: %+v, %v", dir, e, err)
			}
			if r, err := f.Get(t.Context(), clinic, d.ID); err != nil || r.EventID != sealed.Erased || r.Type != "patient.created" {
				t.Errorf("%s: %+v, %v", dir, r, err)
			}
			if found, err := f.due(); err != nil || len(found) != 1 || found[0].Event != nil {
				t.Errorf("%s: %+v, %v", dir, found, err)
			}
			if _, err := f.cache.ForWriting(t.Context(), clinic); err != nil {
				t.Fatal(err)
			}
		}
		if found, _ := grep(t, dir); found["marker"] > 0 {
			t.Errorf("%s: %v", dir, found)
		}
		if err := f.cache.Delete(t.Context(), clinic); err != nil {
			t.Fatal(err)
		}
	}
	// What is still there can be cancelled, and others go on.
	if err := f.Record(t.Context(), []delivery.Outcome{{Delivery: d, State: delivery.Cancelled, Epoch: 1}}); err != nil {
		t.Error(err)
	}
	f.append(f.Store, newEvent("new"))
}

func (f *fixture) due() ([]delivery.PendingDelivery, error) {
	found, _, _, err := f.Due(f.Context(), sub.Key, delivery.Position{}, time.Now().Add(time.Hour), 10, nil)
	return found, err
}

// TestUnavailableKeys: the first event of a tenant is refused while its seed cannot be had, and stored nowhere. A known
// tenant goes on.
func TestUnavailableKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append(f.Store, newEvent("first"))
	f.keeper.Fail(errors.New("down"))
	f.append(f.Store, newEvent("second"))
	other := newEvent("third")
	other.Event.Tenant = "another"
	if _, _, err := f.Append(t.Context(), []store.NewEvent{newEvent("fourth"), other}); !errors.Is(err, store.ErrKeys) {
		t.Errorf("got %v", err)
	}
	if err := f.Store.Unlock(t.Context(), "another"); !errors.Is(err, store.ErrKeys) {
		t.Errorf("unlock what has no key: %v", err)
	}
	if err := f.Store.Unlock(t.Context(), clinic); err != nil {
		t.Errorf("unlock a known tenant: %v", err)
	}
	f.reopen() // now no tenant is known
	if _, _, err := f.Append(t.Context(), []store.NewEvent{newEvent("fifth")}); !errors.Is(err, store.ErrKeys) {
		t.Errorf("got %v", err)
	}
	found, err := f.due()
	if err != nil || len(found) != 2 {
		t.Fatalf("%d are pending, %v", len(found), err)
	}
	if _, err := f.Event(t.Context(), found[0].ID.Event); !errors.Is(err, store.ErrKeys) || errors.Is(err, store.ErrErased) {
		t.Errorf("read: %v", err)
	}
	f.keeper.Fail(nil)
	if e, err := f.Event(t.Context(), found[0].ID.Event); err != nil || !bytes.Contains(e.Body, []byte(marker)) || e.Traceparent != markerTrace || e.Sealed {
		t.Errorf("once it is back: %+v, %v", e, err)
	}
}

// TestWithoutKeys: a dispatcher that was started without keys delivers no ciphertext.
func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := f.append(f.Store, newEvent(markerID))[0].Delivery(sub)
	plain := sealed.New(f.below, nil)
	if err := plain.Unlock(t.Context(), clinic); err != nil {
		t.Errorf("unlock without keys: %v", err)
	}
	if e, err := plain.Event(t.Context(), d.ID.Event); !errors.Is(err, store.ErrKeys) || e != nil {
		t.Errorf("%+v, %v", e, err)
	}
	if r, err := plain.Get(t.Context(), clinic, d.ID); !errors.Is(err, store.ErrKeys) {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestTurnedOn: a store with events in the clear goes on when encryption is turned on. Repetitions are recognized, what was planned
// before is cancelled, and what is new is sealed.
func TestTurnedOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	plain := sealed.New(f.below, nil)
	before := f.append(plain, newEvent("before"))[0].Delivery(sub)
	planned := newEvent("planned")
	planned.Plans = []store.Plan{{Subscription: sub, Key: key(t, "apt"), Decision: plan.Decision{At: time.Now().Add(time.Hour)}}}
	f.append(plain, planned)

	answers, fanouts, err := f.Append(t.Context(), []store.NewEvent{newEvent("before")})
	if err != nil || !answers[0].Repeated || len(fanouts) > 0 {
		t.Errorf("a repetition: %+v, %v", answers, err)
	}
	cancel := newEvent(markerID)
	cancel.Event.Body = []byte(`{"data":"` + strings.Repeat(marker, 3) + `"}`)
	cancel.Cancels = []store.Cancel{{Subscription: sub, Key: key(t, "apt"), Timestamp: time.Now()}}
	after := f.append(f.Store, cancel)[0].Delivery(sub)
	q := store.Query{Tenant: clinic, Subscription: sub.Name, Key: key(t, "apt"), Limit: 10}
	if records, err := f.List(t.Context(), q); err != nil || len(records) != 1 || records[0].State != delivery.Cancelled {
		t.Errorf("what was planned before: %+v, %v", records, err)
	}
	for id, want := range map[event.DeliveryID]string{before.ID: `"before"`, after.ID: marker + marker} {
		if e, err := f.Event(t.Context(), id.Event); err != nil || !strings.Contains(string(e.Body), want) || e.Size() != len(e.Body) {
			t.Errorf("want %s: %+v, %v", want, e, err)
		}
	}
	f.close()
	if content := contentOf(t, f.dir); strings.Contains(content, marker+marker) || !strings.Contains(content, `"id":"before"`) {
		t.Error("what is new is in the clear, or what was there is not")
	}
	f.open()
}

func contentOf(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, path))
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestSizes: sizes are those of the plain bodies, whatever else was sealed with them.
func TestSizes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := map[event.Key]int{}
	for i, body := range []string{"", "x", strings.Repeat("y", 5000)} {
		e := newEvent(fmt.Sprint("evt-", i))
		e.Event.Body = []byte(body)
		if i == 1 {
			e.Event.Traceparent = ""
		}
		fanouts := f.append(f.Store, e)
		if fanouts[0].Event != e.Event || e.Event.Key == (event.Key{}) {
			t.Error("the fan-out has another event")
		}
		want[e.Event.Key] = len(body)
	}
	found, err := f.due()
	if err != nil || len(found) != 3 {
		t.Fatalf("%d, %v", len(found), err)
	}
	for _, d := range found {
		e, err := f.Event(t.Context(), d.ID.Event)
		if err != nil || d.Size != want[d.ID.Event] || len(e.Body) != d.Size {
			t.Errorf("size %d, %v; want %d", d.Size, err, want[d.ID.Event])
		}
	}
	total := int64(0)
	if err := f.Totals(t.Context(), func(_ event.SubscriptionKey, _, bytes int64) error { total += bytes; return nil }); err != nil || total != 5001 {
		t.Errorf("%d bytes are pending, %v", total, err)
	}
}

// exchanged is a store whose events come back with another's record.
type exchanged struct {
	store.Store
	change func(e *delivery.Event)
}

func (x *exchanged) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	e, err := x.Store.Event(ctx, key)
	if err == nil {
		x.change(e)
	}
	return e, err
}

// TestExchangedRecords: whoever can write to the store cannot have one event's body delivered as another's.
func TestExchangedRecords(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := f.append(f.Store, newEvent("evt-1"))[0].Delivery(sub)
	other := newEvent("evt-2")
	o := f.append(f.Store, other)[0].Delivery(sub)
	foreign := newEvent("evt-1")
	foreign.Event.Tenant = "another"
	g := f.append(f.Store, foreign)[0].Delivery(sub)
	raw := func(key event.Key) *delivery.Event {
		e, err := f.below.Event(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, tc := range map[string]struct {
		change func(e *delivery.Event)
		want   error
	}{
		"another event's body":  {func(e *delivery.Event) { e.Body = raw(o.ID.Event).Body }, envelope.ErrDamaged},
		"another tenant's body": {func(e *delivery.Event) { e.Body = raw(g.ID.Event).Body }, store.ErrErased},
		"another tenant's id":   {func(e *delivery.Event) { e.ID = raw(g.ID.Event).ID }, envelope.ErrDamaged},
		"another tenant":        {func(e *delivery.Event) { e.Tenant = "another" }, store.ErrErased},
		"another type":          {func(e *delivery.Event) { e.Type = "patient.deleted" }, envelope.ErrDamaged},
		"a shorter body":        {func(e *delivery.Event) { e.Body = e.Body[:len(e.Body)-1] }, envelope.ErrDamaged},
		"hardly a body":         {func(e *delivery.Event) { e.Body = e.Body[:envelope.Overhead] }, envelope.ErrDamaged},
		"nothing":               {func(*delivery.Event) {}, nil},
	} {
		s := sealed.New(&exchanged{f.below, tc.change}, f.cache)
		if e, err := s.Event(t.Context(), d.ID.Event); !errors.Is(err, tc.want) || err != nil && e != nil {
			t.Errorf("%s: %+v, %v; want %v", name, e, err, tc.want)
		}
	}
}
