package pebble_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// plansVariable makes the test binary a planner: "DIR ROUND".
const plansVariable = "EVENTFLOW_STORE_PLANS"

const plannedKeys = 8

// planner plans, cancels, starts and delivers from several goroutines until it is killed. It prints what was acknowledged.
func planner(spec string) {
	var dir string
	var round int
	if _, err := fmt.Sscan(spec, &dir, &round); err != nil {
		panic(err)
	}
	s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1, LockWait: 5 * time.Second})
	if err == nil {
		failed := make(chan error, plannedKeys)
		for key := range plannedKeys {
			go func() { failed <- planKeyUntilKilled(s, key, round) }()
		}
		err = <-failed
	}
	fmt.Fprintln(os.Stderr, "eventflow:", err)
	os.Exit(1)
}

// planAt is when an event of that number was, and a planned delivery is due: at once, in every third case.
func planAt(n int) (timestamp, due time.Time) {
	now := time.Now()
	if n%3 != 0 {
		now = now.Add(time.Hour)
	}
	return time.Unix(int64(n), 0), now
}

func plannedEvent(round, key, n int, cancels bool) (store.NewEvent, error) {
	k, err := plan.NewKey(fmt.Sprint(key))
	timestamp, due := planAt(n)
	e := store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{
		Tenant: "clinic-a", ID: fmt.Sprint("evt-", round, "-", key, "-", n), Type: "patient.created", Body: benchBody,
	}}}
	if cancels {
		e.Cancels = []store.Cancel{{Subscription: &benchSub, Key: k, Timestamp: timestamp}}
	} else {
		e.Plans = []store.Plan{{Subscription: &benchSub, Key: k, Timestamp: timestamp, Decision: plan.Decision{At: due}}}
	}
	return e, err
}

func planKeyUntilKilled(s *pebble.Store, key, round int) error {
	ctx := context.Background()
	for n := 1e6*round + 1; ; n++ {
		cancels := n%5 == 0
		e, err := plannedEvent(round, key, n, cancels)
		if err != nil {
			return err
		}
		if _, _, err := s.Append(ctx, []store.NewEvent{e}); err != nil {
			return err
		}
		id := event.DeliveryID{Event: e.Event.Key, Subscription: benchSub.Key}
		fmt.Fprintln(os.Stdout, key, n, cancels, id)
		if n%3 != 0 || cancels {
			continue
		}
		if started, err := s.Start(ctx, delivery.PendingDelivery{ID: id}); err != nil || !started {
			return errors.Join(err, fmt.Errorf("start %s: %t", id, started))
		}
		d := delivery.PendingDelivery{ID: id}
		o := delivery.Outcome{Delivery: d, State: delivery.Delivered, Attempt: benchAttempt(&d, 200, "")}
		if err := s.Record(ctx, []delivery.Outcome{o}); err != nil {
			return err
		}
	}
}

// acked is what was acknowledged for a key: the number of its newest event, and whether that cancels.
type acked struct {
	newest  int
	cancels bool
	plans   map[event.DeliveryID]int
}

// TestKilledWhilePlanning kills a process that plans and cancels. What was acknowledged last for a key holds.
func TestKilledWhilePlanning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(3, 3))
	acks := [plannedKeys]acked{}
	for key := range acks {
		acks[key].plans = map[event.DeliveryID]int{}
	}
	for round := range 5 {
		killPlanner(t, dir, round, 100+random.IntN(900), &acks)
		auditPlans(t, dir, &acks)
	}
}

// killPlanner kills a planner after some acknowledgements.
func killPlanner(t *testing.T, dir string, round, after int, acks *[plannedKeys]acked) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", plansVariable, dir, round))
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		var key, number int
		var cancels bool
		var text string
		if _, err := fmt.Sscan(lines.Text(), &key, &number, &cancels, &text); err == nil {
			if id, err := event.ParseDeliveryID(text); err == nil {
				a := &acks[key]
				if a.newest, a.cancels = number, cancels; !cancels {
					a.plans[id] = number
				}
			}
		}
		if n == after {
			if err := command.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != -1 {
		t.Fatalf("the planner ended: %v\n%s", err, stderr.String())
	}
}

// auditPlans opens what a planner left. It may have stored one event more for a key than it acknowledged.
func auditPlans(t *testing.T, dir string, acks *[plannedKeys]acked) {
	t.Helper()
	s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1, LockWait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for key := range acks {
		a := &acks[key]
		k, _ := plan.NewKey(fmt.Sprint(key))
		q := store.Query{Tenant: "clinic-a", Subscription: "bench", State: delivery.Pending, Key: k, Limit: 100}
		pending, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range pending {
			number, acknowledged := a.plans[r.ID]
			if acknowledged && (number < a.newest || a.cancels) {
				t.Errorf("key %d: the delivery of event %d is pending; event %d came later, and cancels: %t", key, number, a.newest, a.cancels)
			}
			if _, err := s.Event(t.Context(), r.ID.Event); err != nil {
				t.Errorf("the event of what is pending: %v", err)
			}
		}
		if len(pending) > 1 {
			t.Errorf("key %d: %d deliveries are pending", key, len(pending))
		}
		for id := range a.plans {
			total++
			if _, err := s.Get(t.Context(), "clinic-a", id); err != nil {
				t.Fatalf("%s, which was acknowledged: %v", id, err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if total < 100 {
		t.Errorf("only %d plans were acknowledged", total)
	}
}
