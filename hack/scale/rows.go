package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// A goal of each row, as issue 8 has them.
const (
	goalRatio        = 2.5
	goalChange       = 4.0
	goalNews         = 2.0 // seconds
	goalRequests     = 1.0 // for each 500 subscriptions
	goalRotated      = 2.0 // seconds
	goalFlapping     = 30.0
	goalResident     = 1024.0 // MiB
	requestsPer      = 500.0
	quiet            = 3 * time.Second
	settleWithin     = 5 * time.Minute
	readyWithin      = 20 * time.Minute
	newsAfter        = 2 * time.Second
	newsWithin       = 3 * time.Minute
	changes          = 5
	countsWithin     = 3 * time.Minute
	progressInterval = 10 * time.Second
)

// rowNames are all rows in their order.
func rowNames() []string {
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].name
	}
	return names
}

var all = []struct {
	name string
	do   func(*stage, context.Context) error
}{
	{"bare", (*stage).rowBare},
	{"apply", (*stage).rowApply},
	{"change", (*stage).rowChange},
	{"restart", (*stage).rowRestart},
	{"news", (*stage).rowNews},
	{"rotate", (*stage).rowRotate},
	{"flap", (*stage).rowFlap},
	{"counts", (*stage).rowCounts},
	{"idle", (*stage).rowIdle},
	{"table", (*stage).rowTable},
}

// measure runs the rows that were asked for.
func (s *stage) measure(ctx context.Context) error {
	s.result = result{Subscriptions: s.subscriptions, Namespaces: s.namespaces, Cores: runtime.NumCPU()}
	if err := s.startReceiver(ctx); err != nil {
		return err
	}
	if err := s.createDispatcher(ctx); err != nil {
		return err
	}
	for _, r := range all {
		if !slices.Contains(s.rows, r.name) && r.name != "apply" { // the others need what it makes
			continue
		}
		s.say("row %s", r.name)
		if err := r.do(s, ctx); err != nil {
			return fmt.Errorf("row %s: %w", r.name, err)
		}
	}
	return nil
}

// begin starts to measure a row: what was asked before does not count.
func (s *stage) begin(name string) (*row, error) {
	if err := s.audit.next(func(request) {}); err != nil {
		return nil, err
	}
	r := &row{Name: name, Usage: make(map[string]*usage), Requests: make(tally), began: time.Now()}
	for process, p := range s.processes() {
		r.Usage[process] = &usage{cpuBefore: p.cpu()}
	}
	return r, nil
}

func (s *stage) processes() map[string]*process {
	found := map[string]*process{"apiserver": s.apiserver, "etcd": s.etcd}
	if s.manager != nil {
		found[userManager] = s.manager
	}
	if s.dispatcher != nil {
		found[userDispatcher] = s.dispatcher
	}
	return found
}

// observe takes in what was asked since the row began, or since the last call.
func (s *stage) observe(r *row) error {
	return s.audit.next(func(q request) {
		r.Requests.add(q)
		if r.seen != nil {
			r.seen(q)
		}
	})
}

// end finishes a row.
func (s *stage) end(r *row) error {
	if err := s.observe(r); err != nil {
		return err
	}
	if r.Seconds == 0 {
		r.Seconds = time.Since(r.began).Seconds()
	}
	for name, p := range s.processes() {
		u := r.Usage[name]
		if u == nil {
			u = &usage{}
			r.Usage[name] = u
		}
		u.CPUSeconds = (p.cpu() - u.cpuBefore).Seconds()
		if u.CPUSeconds < 0 { // it was started anew
			u.CPUSeconds = p.cpu().Seconds()
		}
		u.ResidentMiB, u.ResidentPeakMiB = p.resident()
	}
	s.result.Rows = append(s.result.Rows, r)
	for _, f := range r.Figures {
		s.say("  %s: %s", f.Name, number(f.Value))
	}
	return s.alive()
}

// settle waits until manager and dispatcher have asked nothing for a while.
func (s *stage) settle(ctx context.Context, r *row) error {
	since, before := time.Now(), -1
	return until(ctx, settleWithin, 200*time.Millisecond, "manager and dispatcher have nothing more to ask", func() (bool, error) {
		if err := s.observe(r); err != nil {
			return false, err
		}
		if now := r.of(userManager) + r.of(userDispatcher); now != before {
			since, before = time.Now(), now
		}
		return time.Since(since) > quiet, s.alive()
	})
}

// rowBare creates and deletes subscriptions while nobody but this program watches them.
func (s *stage) rowBare(ctx context.Context) error {
	n := min(s.bare, s.subscriptions)
	if err := s.makeRoom(ctx, kindBare, n); err != nil {
		return err
	}
	r, err := s.begin("bare")
	if err != nil {
		return err
	}
	if err := s.create(ctx, kindBare, n); err != nil {
		return err
	}
	if err := s.end(r); err != nil {
		return err
	}
	s.bareCost = 1000 * r.Usage["apiserver"].CPUSeconds / float64(n)
	r.add("API server's CPU for each, ms", s.bareCost)
	r.add("seconds", r.Seconds)
	for i := range s.namespaces {
		namespace := client.InNamespace(s.place(kindBare, i).Namespace)
		for _, object := range []client.Object{&v1alpha1.WebhookSubscription{}, &corev1.Secret{}} {
			if err := s.api.DeleteAllOf(ctx, object, namespace); err != nil {
				return err
			}
		}
	}
	return until(ctx, upWithin, 100*time.Millisecond, "the deletion", func() (bool, error) {
		return s.world.count(func(client.ObjectKey, state) bool { return true }) == 0, nil
	})
}

// rowApply creates all, and waits until each is Ready.
func (s *stage) rowApply(ctx context.Context) error {
	if err := s.makeRoom(ctx, kindMany, s.subscriptions); err != nil {
		return err
	}
	if err := s.startManager(ctx); err != nil {
		return err
	}
	if err := s.startDispatcher(ctx, true); err != nil {
		return err
	}
	r, err := s.begin("apply")
	if err != nil {
		return err
	}
	if err := s.settle(ctx, r); err != nil {
		return err
	}
	if r, err = s.begin("apply"); err != nil {
		return err
	}
	if err := s.create(ctx, kindMany, s.subscriptions); err != nil {
		return err
	}
	created := time.Since(r.began)
	if err := s.awaitReady(ctx, readyWithin, s.subscriptions); err != nil {
		return err
	}
	r.Seconds = time.Since(r.began).Seconds()
	if err := s.settle(ctx, r); err != nil {
		return err
	}
	if err := s.end(r); err != nil {
		return err
	}
	each := 1000 * r.Usage["apiserver"].CPUSeconds / float64(s.subscriptions)
	if s.bareCost > 0 {
		r.goal("API server's CPU, of that of bare creates", each/s.bareCost, goalRatio)
	}
	r.add("seconds until all are Ready", r.Seconds)
	r.add("seconds until all are created", created.Seconds())
	r.add("API server's CPU for each, ms", each)
	r.add("writes for each", float64(r.writes())/float64(s.subscriptions))
	return nil
}

// awaitReady waits until n subscriptions are Ready.
func (s *stage) awaitReady(ctx context.Context, limit time.Duration, n int) error {
	shown := time.Now()
	return until(ctx, limit, 50*time.Millisecond, fmt.Sprintf("%d subscriptions are Ready", n), func() (bool, error) {
		ready := s.world.count(func(_ client.ObjectKey, st state) bool { return st.ready })
		if time.Since(shown) > progressInterval {
			s.say("  %d of %d are Ready", ready, n)
			shown = time.Now()
		}
		return ready >= n, s.alive()
	})
}

// rowChange changes a few specs, one after the other.
func (s *stage) rowChange(ctx context.Context) error {
	r, err := s.begin("change")
	if err != nil {
		return err
	}
	slowest := 0.0
	for i := range min(changes, s.subscriptions) {
		key := s.place(kindMany, i)
		sub := &v1alpha1.WebhookSubscription{}
		if err := s.api.Get(ctx, key, sub); err != nil {
			return err
		}
		sub.Spec.Events = []string{"patient.*", "lab.*"}
		s.world.forget(key)
		start := time.Now()
		if err := s.api.Update(ctx, sub); err != nil {
			return err
		}
		if err := s.ready(ctx, key); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(start).Seconds())
		if err := s.settle(ctx, r); err != nil {
			return err
		}
	}
	if err := s.end(r); err != nil {
		return err
	}
	r.goal("writes for each", float64(r.writes())/float64(min(changes, s.subscriptions)), goalChange)
	r.add("seconds until Ready, the slowest", slowest)
	return nil
}

// ready waits until one subscription is Ready.
func (s *stage) ready(ctx context.Context, key client.ObjectKey) error {
	return until(ctx, newsWithin, 10*time.Millisecond, key.String()+" is Ready", func() (bool, error) {
		return s.world.get(key).ready, s.alive()
	})
}

// rowRestart restarts manager and dispatcher with nothing changed.
func (s *stage) rowRestart(ctx context.Context) error {
	for _, who := range []string{userManager, userDispatcher} {
		r, err := s.begin("restart of the " + who)
		if err != nil {
			return err
		}
		if err := s.restart(ctx, who); err != nil {
			return err
		}
		if err := s.settle(ctx, r); err != nil {
			return err
		}
		r.Seconds = time.Since(r.began).Seconds() - quiet.Seconds()
		if err := s.end(r); err != nil {
			return err
		}
		r.goal("writes", float64(r.writes()), 0)
		r.goal("requests for 500 subscriptions", float64(r.of(who))*requestsPer/max(float64(s.subscriptions), requestsPer), goalRequests)
		r.add("requests", float64(r.of(who)))
		r.add("seconds until steady", r.Seconds)
	}
	return nil
}

// rowNews creates a subscription shortly after a restart of either.
func (s *stage) rowNews(ctx context.Context) error {
	if err := s.makeRoom(ctx, kindNews, 2); err != nil {
		return err
	}
	for i, who := range []string{userDispatcher, userManager} {
		r, err := s.begin("news after the " + who + "'s restart")
		if err != nil {
			return err
		}
		if err := s.restart(ctx, who); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(newsAfter):
		}
		start := time.Now()
		if err := s.api.Create(ctx, s.subscription(kindNews, i)); err != nil {
			return err
		}
		if err := s.ready(ctx, s.place(kindNews, i)); err != nil {
			return err
		}
		r.goal("seconds until Ready", time.Since(start).Seconds(), goalNews)
		if err := s.settle(ctx, r); err != nil {
			return err
		}
		if err := s.end(r); err != nil {
			return err
		}
	}
	return nil
}
