package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// TestRunsOnce: all that is selected is done once, the status says so, and a restart does nothing again.
func TestRunsOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spec  v1alpha1.WebhookReplaySpec
		state delivery.State
	}{
		"failed":    {v1alpha1.WebhookReplaySpec{}, delivery.Failed},
		"cancelled": {v1alpha1.WebhookReplaySpec{State: v1alpha1.ReplayCancelled}, delivery.Cancelled},
		"delivered": {v1alpha1.WebhookReplaySpec{State: v1alpha1.ReplayDelivered}, delivery.Delivered},
		"planned":   {v1alpha1.WebhookReplaySpec{Action: v1alpha1.ActionCancel}, delivery.Pending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.have("clinic-a", "billing", 1200, test.state)
				f.have("clinic-a", "alerts", 30, test.state)
				f.have("clinic-a", "other", 7, test.state)
				f.have("clinic-b", "billing", 7, test.state)
				test.spec.RatePerSecond = 1000
				f.replay("clinic-a", "once", test.spec, "alerts", "billing")
				stop := f.start()
				p := f.finished("clinic-a", "once", 10*time.Second)
				if *p.Selected != 1230 || *p.Done != 1230 || *p.PassedOver != 0 {
					t.Errorf("selected %d, done %d, passed over %d", *p.Selected, *p.Done, *p.PassedOver)
				}
				stop(true)
				stop = f.start()
				f.after(10 * time.Second)
				stop(true)
				if total, most := f.deliveries.total(); total != 1230 || most != 1 {
					t.Errorf("%d were done, one of them %d times", total, most)
				}
			})
		})
	}
}

// TestBounds: since and until select by acceptance; without until the set ends when the object was created.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.have("clinic-a", "billing", 100, delivery.Failed)
		f.replay("clinic-a", "closed", v1alpha1.WebhookReplaySpec{Since: ptr.To(metav1.NewTime(time.Now().Add(-61 * time.Minute)))}, "billing")
		f.after(61 * time.Minute)
		f.have("clinic-a", "billing", 3, delivery.Failed) // accepted after it was created
		stop := f.start()
		defer stop(true)
		if p := f.finished("clinic-a", "closed", time.Minute); *p.Done != 100 {
			t.Errorf("%d were done, want the 100 that were there", *p.Done)
		}
	})
}

// TestRateIsHeld: within any time no more is done than the rate allows; a change of it takes effect; dispatchers share it.
func TestRateIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.have("clinic-a", "billing", 5000, delivery.Failed)
		f.replay("clinic-a", "slow", v1alpha1.WebhookReplaySpec{RatePerSecond: 20}, "billing")
		f.cluster.change("clinic-a", "slow", func(r *v1alpha1.WebhookReplay) {
			r.Status.Subscriptions = append(r.Status.Subscriptions, v1alpha1.ReplaySubscription{Name: "x", Dispatcher: "eventflow-system/other"})
		})
		stop := f.start()
		defer stop(true)
		f.after(20 * time.Second)
		if total, _ := f.deliveries.total(); total < 150 || total > 204 {
			t.Errorf("%d were done in 20 s by one of two dispatchers, at 20 a second for both", total)
		}
		f.cluster.change("clinic-a", "slow", func(r *v1alpha1.WebhookReplay) { r.Spec.RatePerSecond = 400 })
		before, _ := f.deliveries.total()
		f.after(5 * time.Second)
		if total, _ := f.deliveries.total(); total-before < 700 || total-before > 1050 {
			t.Errorf("%d were done in 5 s at 200 a second", total-before)
		}
	})
}

// TestKilledAnywhere: a process that is killed at any moment, and the next one behind it, do everything once. Of failed ones this is
// the state's doing; delivered ones are found by their repetitions.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, state := range []v1alpha1.ReplayState{v1alpha1.ReplayFailed, v1alpha1.ReplayDelivered} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				random := rand.New(rand.NewPCG(11, 15))
				for i := range 40 {
					f.have("clinic-a", fmt.Sprint("few-", i), 11, states[state])
				}
				f.have("clinic-a", "billing", 1500, states[state])
				names := []string{"billing"}
				for i := range 40 {
					names = append(names, fmt.Sprint("few-", i))
				}
				f.replay("clinic-a", "killed", v1alpha1.WebhookReplaySpec{State: state, RatePerSecond: 100}, names...)
				kills := 0
				for f.progress("clinic-a", "killed").State != v1alpha1.ReplayFinished {
					stop := f.start()
					f.after(time.Duration(random.IntN(5000)) * time.Millisecond)
					stop(false)
					if kills++; kills > 200 {
						t.Fatalf("no end: %+v", f.progress("clinic-a", "killed"))
					}
				}
				total, most := f.deliveries.total()
				if total != 1940 || most != 1 {
					t.Errorf("%d were done, one of them %d times, after %d kills", total, most, kills)
				}
				if p := f.progress("clinic-a", "killed"); *p.Done+*p.PassedOver != *p.Selected {
					t.Errorf("selected %d, done %d, passed over %d", *p.Selected, *p.Done, *p.PassedOver)
				}
			})
		})
	}
}

// TestStops: a replay that is suspended or deleted, or has a namesake, or is not this process's any more, does nothing further. Nor
// does one while the API server cannot be reached: nobody could stop it.
func TestStops(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stop     func(f *fixture, leads *atomic.Bool)
		goOn     func(f *fixture, leads *atomic.Bool)
		slack    int
		wantNone bool
	}{
		"suspended": {
			stop: func(f *fixture, _ *atomic.Bool) {
				f.cluster.change("clinic-a", "stops", func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = ptr.To(true) })
			},
			goOn: func(f *fixture, _ *atomic.Bool) {
				if p := f.progress("clinic-a", "stops"); p.State != v1alpha1.ReplaySuspended {
					f.Errorf("the dispatcher says %s", p.State)
				}
				f.cluster.change("clinic-a", "stops", func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = nil })
			},
			slack: 25,
		},
		"suspended, and the watch hangs": {
			stop: func(f *fixture, _ *atomic.Bool) {
				f.cluster.mu.Lock()
				clear(f.cluster.watchers)
				f.cluster.mu.Unlock()
				f.cluster.change("clinic-a", "stops", func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = ptr.To(true) })
			},
			slack: 250, wantNone: true,
		},
		"deleted": {
			stop:  func(f *fixture, _ *atomic.Bool) { f.cluster.remove("clinic-a", "stops") },
			slack: 25, wantNone: true,
		},
		"a namesake": {
			stop: func(f *fixture, _ *atomic.Bool) {
				f.cluster.change("clinic-a", "stops", func(r *v1alpha1.WebhookReplay) {
					r.UID, r.Status.Dispatchers = "another", nil
					r.Status.Subscriptions[0].Name = "of-nothing"
				})
			},
			slack: 25, wantNone: true,
		},
		"another process leads": {
			stop:  func(_ *fixture, leads *atomic.Bool) { leads.Store(false) },
			goOn:  func(_ *fixture, leads *atomic.Bool) { leads.Store(true) },
			slack: 25,
		},
		"an outage of the API server": {
			stop: func(f *fixture, _ *atomic.Bool) {
				f.cluster.mu.Lock()
				defer f.cluster.mu.Unlock()
				f.cluster.down = true
			},
			goOn: func(f *fixture, _ *atomic.Bool) {
				f.cluster.mu.Lock()
				defer f.cluster.mu.Unlock()
				f.cluster.down = false
			},
			slack: 250,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var leads atomic.Bool
				leads.Store(true)
				f.options.Leads = leads.Load
				f.have("clinic-a", "billing", 2000, delivery.Delivered)
				f.replay("clinic-a", "stops", v1alpha1.WebhookReplaySpec{State: v1alpha1.ReplayDelivered, RatePerSecond: 100}, "billing")
				stop := f.start()
				defer stop(true)
				f.after(5 * time.Second)
				for last := f.cluster.written(); f.cluster.written() == last; { // the next write, which would tell, is 2 s away then
					f.after(10 * time.Millisecond)
				}
				before, _ := f.deliveries.total()
				if before == 0 {
					t.Fatal("nothing was done before")
				}
				test.stop(f, &leads)
				f.after(time.Hour)
				stopped, _ := f.deliveries.total()
				if stopped-before > test.slack {
					t.Errorf("%d were done after it", stopped-before)
				}
				if test.wantNone {
					return
				}
				test.goOn(f, &leads)
				f.finished("clinic-a", "stops", time.Minute)
				if total, most := f.deliveries.total(); total != 2000 || most != 1 {
					t.Errorf("%d were done, one of them %d times", total, most)
				}
			})
		})
	}
}

// TestWaits: while the store takes nothing, or the quota of pending deliveries is used up, a replay waits, says why, and goes on.
func TestWaits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		hold       func(f *fixture, held *atomic.Bool)
		wantReason string
	}{
		"the store is full": {func(f *fixture, held *atomic.Bool) {
			f.deliveries.failing = func() error {
				if held.Load() {
					return store.ErrFull
				}
				return nil
			}
		}, v1alpha1.ReasonStoreUnavailable},
		"every other call fails": {func(f *fixture, held *atomic.Bool) {
			calls := 0
			f.deliveries.failing = func() error {
				if calls++; held.Load() && calls%2 == 0 {
					return errors.New("a flaky database")
				}
				return nil
			}
		}, v1alpha1.ReasonStoreUnavailable},
		"the quota is used up": {func(f *fixture, held *atomic.Bool) {
			f.options.Full = func(tenant string) bool { return held.Load() && tenant == "uid-of-clinic-a" }
		}, v1alpha1.ReasonQuotaExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var held atomic.Bool
				held.Store(true)
				test.hold(f, &held)
				f.have("clinic-a", "billing", 300, delivery.Delivered)
				f.replay("clinic-a", "waits", v1alpha1.WebhookReplaySpec{State: v1alpha1.ReplayDelivered}, "billing")
				stop := f.start()
				defer stop(true)
				f.after(20 * time.Second)
				if p := f.progress("clinic-a", "waits"); p.State != v1alpha1.ReplayWaiting || p.Reason != test.wantReason {
					t.Errorf("it says %s for %q", p.State, p.Reason)
				}
				writes := f.cluster.written()
				f.after(10 * time.Minute)
				if more := f.cluster.written() - writes; more > 100 {
					t.Errorf("%d writes in 10 minutes of waiting", more)
				}
				held.Store(false)
				p := f.finished("clinic-a", "waits", time.Minute)
				if total, most := f.deliveries.total(); total != 300 || most != 1 || *p.Done != 300 {
					t.Errorf("%d were done, one of them %d times; the status says %d", total, most, *p.Done)
				}
			})
		})
	}
}

// TestTenantsTakeTurns: many replays of others, on a slow store, do not delay that of one tenant by more than a few turns; nor does
// a tenant's own that waits.
func TestTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.deliveries.slow = time.Second
		f.options.Full = func(tenant string) bool { return tenant == "uid-of-full" }
		for i := range 3 * chunksAtOnce {
			namespace := fmt.Sprint("greedy-", i)
			f.have(namespace, "billing", 3000, delivery.Failed)
			f.replay(namespace, "all", v1alpha1.WebhookReplaySpec{RatePerSecond: 1000}, "billing")
		}
		for i := range 10 {
			namespace := fmt.Sprint("full-", i)
			f.have(namespace, "billing", 10, delivery.Failed)
			f.replay(namespace, "all", v1alpha1.WebhookReplaySpec{}, "billing")
		}
		f.have("full", "billing", 10, delivery.Failed)
		f.replay("full", "all", v1alpha1.WebhookReplaySpec{}, "billing")
		stop := f.start()
		defer stop(true)
		f.after(10 * time.Second)
		f.have("clinic-a", "billing", 5, delivery.Failed)
		f.replay("clinic-a", "few", v1alpha1.WebhookReplaySpec{}, "billing")
		f.finished("clinic-a", "few", 40*time.Second)
		if most := f.deliveries.atOnce(); most > chunksAtOnce*query.BodiesAtOnce {
			t.Errorf("%d deliveries were replayed at once", most)
		}
	})
}

// TestMemoryIsCharged: without memory for the bodies of a chunk nothing is done, and afterwards all of it is given back.
func TestMemoryIsCharged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.options.Memory.TakeOver("others", f.options.Memory.Limit())
		f.have("clinic-a", "billing", 100, delivery.Failed)
		f.replay("clinic-a", "charged", v1alpha1.WebhookReplaySpec{}, "billing")
		stop := f.start()
		f.after(10 * time.Second)
		if total, _ := f.deliveries.total(); total != 0 {
			t.Errorf("%d were done without memory", total)
		}
		f.options.Memory.Give("others", f.options.Memory.Limit())
		f.finished("clinic-a", "charged", 10*time.Second)
		stop(true)
		if used := f.options.Memory.Used(); used != 0 {
			t.Errorf("%d bytes were not given back", used)
		}
	})
}

// TestTheSecondOfItsCreation: the API server says no more than the second, so that all that was accepted in it belongs to the set.
func TestTheSecondOfItsCreation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.have("clinic-a", "billing", 10, delivery.Failed)
		f.replay("clinic-a", "closed", v1alpha1.WebhookReplaySpec{}, "billing")
		stop := f.start()
		defer stop(true)
		f.after(600 * time.Millisecond)
		add := func(name string) {
			f.deliveries.mu.Lock()
			defer f.deliveries.mu.Unlock()
			id := event.DeliveryID{Event: event.NewKey(time.Now(), "clinic-a", name), Subscription: event.NewSubscriptionKey("billing")}
			f.deliveries.records[id] = &store.Record{ID: id, Tenant: "uid-of-clinic-a", Subscription: "billing", State: delivery.Failed}
		}
		add("in the second")
		f.after(500 * time.Millisecond)
		add("behind it")
		if p := f.finished("clinic-a", "closed", 10*time.Second); *p.Done != 11 {
			t.Errorf("%d were done, want the ten of before and the one of its second", *p.Done)
		}
	})
}

// TestOneAtATime: of a namespace's replays one runs at a time, the oldest first, and a suspended one is passed.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.have("clinic-a", "billing", 400, delivery.Failed)
		f.have("clinic-a", "alerts", 40, delivery.Failed)
		f.replay("clinic-a", "first", v1alpha1.WebhookReplaySpec{Suspend: ptr.To(true)}, "billing")
		f.after(time.Second)
		f.replay("clinic-a", "second", v1alpha1.WebhookReplaySpec{}, "billing")
		f.after(time.Second)
		f.replay("clinic-a", "third", v1alpha1.WebhookReplaySpec{}, "alerts")
		stop := f.start()
		defer stop(true)
		f.after(3 * time.Second)
		if p := f.progress("clinic-a", "third"); p.State != "" || f.progress("clinic-a", "second").State != v1alpha1.ReplayRunning {
			t.Errorf("the third says %q while the second says %q", p.State, f.progress("clinic-a", "second").State)
		}
		f.finished("clinic-a", "second", 20*time.Second)
		f.finished("clinic-a", "third", 20*time.Second)
		if p := f.progress("clinic-a", "first"); p.State == v1alpha1.ReplayFinished {
			t.Error("the suspended one ran")
		}
	})
}

// TestWithRolesAlone: a dispatcher that may not list the replays of all namespaces finds those of the routing table's.
func TestWithRolesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cluster.scoped = true
		f.have("clinic-b", "billing", 40, delivery.Failed)
		stop := f.start()
		defer stop(true)
		f.after(time.Second)
		f.replay("clinic-b", "polled", v1alpha1.WebhookReplaySpec{}, "billing")
		f.finished("clinic-b", "polled", time.Minute)
	})
}
