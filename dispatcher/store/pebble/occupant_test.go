package pebble_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// volumeVariable makes the test binary a process that works on a volume: "DIR ROUND".
const volumeVariable = "EVENTFLOW_STORE_VOLUME"

// exitFull is how it ends if the volume has no room to start in.
const exitFull = 3

// occupant publishes, gives up, cancels and replays until it is killed. It prints what was acknowledged.
func occupant(spec string) {
	var dir string
	var round int
	if _, err := fmt.Sscan(spec, &dir, &round); err != nil {
		panic(err)
	}
	s, err := pebble.Open(dir, pebble.Options{LockWait: 5 * time.Second})
	if errors.Is(err, store.ErrFull) {
		os.Exit(exitFull)
	}
	if err == nil {
		err = occupy(s, round)
	}
	fmt.Fprintln(os.Stderr, "eventflow:", err)
	os.Exit(1)
}

func occupy(s *pebble.Store, round int) error {
	ctx := context.Background()
	random := rand.New(rand.NewPCG(uint64(round), 1))
	body := make([]byte, 16<<10)
	var pending, finished []delivery.PendingDelivery
	for i := 0; ; i++ {
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(round)}).Read(body)
		e := &delivery.Event{Tenant: "clinic-a", ID: fmt.Sprint("evt-", round, "-", i), Type: "patient.created", Body: bytes.Clone(body)}
		_, fanouts, err := s.Append(ctx, []store.NewEvent{{Fanout: delivery.Fanout{Event: e, Subscriptions: []*delivery.Subscription{&benchSub}}}})
		if err != nil && !errors.Is(err, store.ErrFull) {
			return err
		}
		fmt.Fprintln(os.Stdout, "tick")
		deliveries := storetest.Deliveries(fanouts)
		for _, d := range deliveries {
			fmt.Fprintln(os.Stdout, d.ID)
		}
		if pending = append(pending, deliveries...); len(pending) > 10 {
			outcomes := make([]delivery.Outcome, len(pending))
			for j, d := range pending {
				d.Event = nil
				outcomes[j] = delivery.Outcome{Delivery: d, State: delivery.Failed + delivery.State(random.IntN(2))}
			}
			if err := s.Record(ctx, outcomes); err != nil {
				return err
			}
			finished, pending = append(finished, pending...), nil
		}
		if len(finished) > 0 && i%7 == 0 {
			if _, err := s.Replay(ctx, "clinic-a", finished[random.IntN(len(finished))].ID); err != nil && !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrStillPending) {
				return err
			}
		}
	}
}
