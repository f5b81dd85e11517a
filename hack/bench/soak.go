package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// The tenants of the soak: a crowd that misbehaves, tenants that are edited and replayed, and healthy ones.
const (
	soakCrowd   = 60
	soakEdited  = soakCrowd
	soakReplays = soakCrowd + 1
	soakHealthy = 4 // from healthyGroup on
	soakFan     = 2
)

// soak is a run of the scenario.
type soak struct {
	*stage
	bench *bench
	m     *measured
	loads []*load // those that are to arrive
	ended int     // times the dispatcher ended by itself

	restarting sync.RWMutex // held while there is no dispatcher
}

// runSoak does everything at once for a time, and looks whether the dispatcher grows.
func runSoak(ctx context.Context, b *bench, m *measured) error {
	tenants := crowd(soakCrowd, func(i int) []subscription {
		return repeated(5, subscription{misbehaviours[i%len(misbehaviours)], "timeout: 10s, retry: {initialDelay: 5s, maxDelay: 60s, maxAge: 10m}"})
	})[1:]
	fine := repeated(soakFan, subscription{behaviour: behaviourOK})
	for _, group := range []int{soakEdited, soakReplays, healthyGroup, healthyGroup + 1, healthyGroup + 2, healthyGroup + 3} {
		tenants = append(tenants, tenant{group, fine})
	}
	s, err := b.newStage(ctx, props{tenants: tenants})
	if err != nil {
		return err
	}
	defer s.end()
	return (&soak{stage: s, bench: b, m: m}).run(ctx)
}

func (s *soak) run(ctx context.Context) error {
	var stops []func() error
	begin := func(l *load, perSecond float64) error {
		stop, err := s.beside(ctx, l, steadily(perSecond))
		if err == nil {
			stops = append(stops, stop)
		}
		return err
	}
	seconds := int(s.bench.soakFor.Seconds())
	healthyLoad := s.newLoad(healthyGroup, soakHealthy, soakFan, 40*seconds, 16, 1)
	edited, replayed := s.newLoad(soakEdited, 1, soakFan, 10*seconds, 4, 1), s.newLoad(soakReplays, 1, soakFan, 10*seconds, 4, 1)
	s.loads = []*load{healthyLoad, edited, replayed}
	mixed := s.newLoad(0, soakCrowd, 5, 60*seconds, 16, 1)
	err := errors.Join(begin(healthyLoad, 40), begin(edited, 10), begin(replayed, 10), begin(mixed, 60))
	var floods []*flooding
	for _, a := range []attack{{Kind: attackUploads, Connections: 100}, {Kind: attackIdle, Connections: 500}, {Kind: attackHeaders, Connections: 200}} {
		a.Target, a.Namespace, a.From = s.api, namespaceOf(0), localAddresses(5)
		f, flawed := s.bench.startFlood(ctx, a)
		if err = errors.Join(err, flawed); flawed == nil {
			floods = append(floods, f)
		}
	}
	samples := s.trouble(ctx, err == nil)
	for _, stop := range stops {
		err = errors.Join(err, stop())
	}
	for _, f := range floods {
		err = errors.Join(err, f.stop(nil))
	}
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	s.report(samples)
	// A dispatcher that was just started answers 503 until it has its routes; 429 would be the others' doing.
	s.m.add("healthy answered 429", float64(healthyLoad.busy.Load()))
	s.m.add("healthy answered 503", float64(healthyLoad.refused.Load()-healthyLoad.busy.Load()-healthyLoad.broken.Load()))
	return s.audit(ctx, mixed)
}

// trouble edits, replays, kills and samples until the time is over.
func (s *soak) trouble(ctx context.Context, wanted bool) []soakSample {
	if !wanted {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.bench.soakFor)
	defer cancel()
	var all []soakSample
	var work sync.WaitGroup
	every := func(interval time.Duration, do func(n int)) {
		if interval <= 0 {
			return
		}
		work.Go(func() {
			for n := 0; pause(ctx, interval) == nil; n++ {
				do(n)
			}
		})
	}
	every(min(5*time.Second, s.bench.soakFor/60), func(int) {
		s.restarting.RLock()
		defer s.restarting.RUnlock()
		resident, _ := s.resident()
		if one := (soakSample{resident, float64(s.descriptors()), s.metric(ctx, "go_goroutines")}); one.Goroutines > 0 {
			all = append(all, one)
		}
	})
	every(3*time.Second, func(n int) { s.edit(n) })
	every(20*time.Second, func(int) {
		s.restarting.RLock()
		defer s.restarting.RUnlock()
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		since := time.Now().Add(-20 * time.Second).UTC().Format(time.RFC3339)
		// An answer that does not come shows in the audit, if it matters.
		_, _ = s.call(limited, http.MethodPost, namespaceOf(soakReplays)+"/deliveries/replay", fmt.Appendf(nil, `{"state":"Delivered","since":%q}`, since))
	})
	every(s.bench.killEvery, func(int) { s.restart(ctx) })
	every(time.Second, func(int) {
		s.restarting.RLock()
		gone := s.gone()
		s.restarting.RUnlock()
		if gone {
			s.ended++
			s.bench.progress("  it ended by itself: %.300s", lastLine(s.logged()))
			s.restart(ctx)
		}
	})
	work.Wait()
	return all
}

// restart kills the dispatcher and starts it.
func (s *soak) restart(ctx context.Context) {
	s.restarting.Lock()
	defer s.restarting.Unlock()
	if err := s.again(context.WithoutCancel(ctx)); err != nil {
		s.bench.progress("  a start failed: %.300s", lastLine([]byte(err.Error())))
	}
}

// edit changes a tenant's subscriptions: what is suspended, the order of keys, how fast they may be.
func (s *soak) edit(n int) {
	specs := []string{"", suspended, "timeout: 20s", "delivery: {maxInFlight: 3}"}
	subs := repeated(soakFan, subscription{behaviour: behaviourOK})
	subs[n%soakFan].spec = specs[n%len(specs)]
	if err := s.write(tenant{soakEdited, subs}); err != nil {
		s.bench.progress("  an edit failed: %v", err)
	}
}

// soakSample is what the dispatcher held at a moment; memory in MiB.
type soakSample struct{ Resident, Descriptors, Goroutines float64 }

// descriptors is how many the process has open.
func (p *process) descriptors() int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		return 0
	}
	return len(names)
}

func (s *soak) report(all []soakSample) {
	for name, figure := range map[string]func(soakSample) float64{
		"resident": func(x soakSample) float64 { return x.Resident }, "descriptors": func(x soakSample) float64 { return x.Descriptors },
		"goroutines": func(x soakSample) float64 { return x.Goroutines },
	} {
		values := make([]float64, 0, len(all))
		for _, x := range all {
			values = append(values, figure(x))
		}
		s.m.add("growth of "+name+" (%)", rise(values))
		if n := len(values); n > 0 {
			s.m.add(name+" at the end", values[n-1])
		}
	}
	s.m.add("ended by itself", float64(s.ended))
	s.limit.report(s.m, "")
}

// rise is by how many percent the median of the last third of values lies above that of the middle third.
func rise(values []float64) float64 {
	third := len(values) / 3
	if third == 0 {
		return 0
	}
	middle, last := median(values[third:len(values)-third]), median(values[len(values)-third:])
	return max(0, (last-middle)/max(middle, 1)*100)
}

// audit gives the healthy deliveries time to arrive and counts what is lost, and what came to another tenant.
func (s *soak) audit(ctx context.Context, mixed *load) error {
	s.edit(0) // none of the edited tenant's subscriptions stays suspended
	lost, crossed := 0, 0
	for _, l := range s.loads {
		if err := s.trap.wait(ctx, l.Run, l.acknowledged()*l.Fan, s.bench.patience); err != nil {
			return err
		}
		missing, astray, _, err := s.lost(ctx, l, "Pending")
		if err != nil {
			return err
		}
		lost, crossed = lost+missing, crossed+astray
	}
	missing, astray, _, err := s.lost(ctx, mixed, "Pending", "Failed")
	if err != nil {
		return err
	}
	s.m.add("lost", float64(lost+missing))
	s.m.add("crossed tenants", float64(crossed+astray))
	return nil
}

func lines(text []byte) iter.Seq[string] { return strings.Lines(strings.TrimSpace(string(text))) }
