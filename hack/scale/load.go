package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// rowRotate changes the one Secret that many subscriptions name.
func (s *stage) rowRotate(ctx context.Context) error {
	if err := s.makeRoom(ctx, kindRotated, s.rotated); err != nil {
		return err
	}
	before := s.world.count(func(_ client.ObjectKey, st state) bool { return st.ready })
	if err := s.create(ctx, kindRotated, s.rotated); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, readyWithin, before+s.rotated); err != nil {
		return err
	}
	r, err := s.begin("rotate")
	if err != nil {
		return err
	}
	if err := s.settle(ctx, r); err != nil {
		return err
	}
	if r, err = s.begin("rotate"); err != nil {
		return err
	}
	gets := 0
	r.seen = func(q request) {
		if q.User == userManager && q.Verb == "get" && q.Resource == "secrets" && q.Namespace == kindRotated {
			gets++
		}
	}
	secret := s.secret(kindRotated, "key")
	wanted := secret.StringData["key"] // the answer to the update has none
	start := time.Now()
	if err := s.api.Update(ctx, secret); err != nil {
		return err
	}
	err = until(ctx, newsWithin, 100*time.Millisecond, "the table has the rotated key", func() (bool, error) {
		n, err := s.rotatedTo(ctx, wanted)
		return n == s.rotated, errors.Join(err, s.alive())
	})
	if err != nil {
		return err
	}
	r.goal("seconds until it is in the table", time.Since(start).Seconds(), goalRotated)
	if err := s.settle(ctx, r); err != nil {
		return err
	}
	if err := s.end(r); err != nil {
		return err
	}
	r.goal("reads of the Secret", float64(gets), 1)
	return nil
}

// rotatedTo counts the rotated subscriptions whose key in the table is the wanted one.
func (s *stage) rotatedTo(ctx context.Context, wanted string) (n int, err error) {
	shards, _, err := s.shards(ctx)
	for _, shard := range shards {
		entries, err := routing.DecodeShard(shard)
		if err != nil {
			return 0, err
		}
		for _, entry := range entries {
			if entry.Namespace == kindRotated && len(entry.Keys) > 0 && string(entry.Keys[0]) == wanted {
				n++
			}
		}
	}
	return n, err
}

// shards reads the shards that the index names as they are, and how many Secrets there are of the table.
func (s *stage) shards(ctx context.Context) (shards [][]byte, secrets int, err error) {
	list := &corev1.SecretList{}
	if err := s.api.List(ctx, list, client.InNamespace(systemNamespace)); err != nil {
		return nil, 0, err
	}
	for i := range list.Items {
		secret := &list.Items[i]
		if !strings.HasPrefix(secret.Name, routing.IndexName(dispatcherName)) {
			continue
		}
		secrets++
		if shard, found := secret.Data[routing.ShardKey]; found {
			shards = append(shards, shard)
		}
	}
	return shards, secrets, nil
}

// rowFlap has endpoints answer well and badly in turn, and a delivery for each every second.
func (s *stage) rowFlap(ctx context.Context) error {
	n := s.flapping
	if err := s.makeRoom(ctx, kindFlap, n); err != nil {
		return err
	}
	before := s.world.count(func(_ client.ObjectKey, st state) bool { return st.ready })
	if err := s.create(ctx, kindFlap, n); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, readyWithin, before+n); err != nil {
		return err
	}
	if err := s.flapFrom(ctx, 10*time.Second); err != nil { // the first health of each is news
		return err
	}
	r, err := s.begin("flap")
	if err != nil {
		return err
	}
	answered := s.receiver.answered.Load()
	if err := s.flapFrom(ctx, s.flapFor); err != nil {
		return err
	}
	if err := s.end(r); err != nil {
		return err
	}
	r.goal("writes a second", float64(r.writes())/r.Seconds, goalFlapping)
	r.add("attempts a second", float64(s.receiver.answered.Load()-answered)/r.Seconds)
	s.receiver.down.Store(false)
	return s.settle(ctx, &row{Requests: make(tally)})
}

// flapFrom publishes an event a second, of which every other one fails at all endpoints that flap.
func (s *stage) flapFrom(ctx context.Context, duration time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(duration); time.Now().Before(end); {
		s.receiver.down.Store(!s.receiver.down.Load())
		if err := s.publish(ctx, kindFlap); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// rowCounts delivers to each subscription twice: the first delivery changes its health, the second a count alone.
func (s *stage) rowCounts(ctx context.Context) error {
	for round := range int64(2) {
		r, err := s.begin(fmt.Sprintf("counts %d", round+1))
		if err != nil {
			return err
		}
		wanted := round + 1
		for i := range s.namespaces {
			if err := s.publish(ctx, s.place(kindMany, i).Namespace); err != nil {
				return err
			}
		}
		published := time.Now()
		right := func() int {
			return s.world.count(func(key client.ObjectKey, st state) bool {
				return strings.HasPrefix(key.Namespace, kindMany+"-") && st.delivered >= wanted
			})
		}
		err = until(ctx, countsWithin, 100*time.Millisecond, "counts", func() (bool, error) { return right() >= s.subscriptions, s.alive() })
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		r.add("seconds until the counts are right", time.Since(published).Seconds())
		r.add("counts that are right, of all", float64(right())/float64(s.subscriptions))
		if err := s.settle(ctx, r); err != nil {
			return err
		}
		if err := s.end(r); err != nil {
			return err
		}
		r.add("writes a second", float64(r.writes())/r.Seconds)
	}
	return nil
}

// rowIdle counts what is written while nothing happens.
func (s *stage) rowIdle(ctx context.Context) error {
	if err := s.settle(ctx, &row{Requests: make(tally)}); err != nil {
		return err
	}
	r, err := s.begin("idle")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.idleFor):
	}
	if err := s.end(r); err != nil {
		return err
	}
	r.goal("writes", float64(r.writes()), 0)
	for _, who := range []string{userManager, userDispatcher} {
		r.goal("resident memory of the "+who+", MiB", r.Usage[who].ResidentMiB, goalResident)
	}
	return nil
}

// rowTable says how large the routing table is.
func (s *stage) rowTable(ctx context.Context) error {
	shards, secrets, err := s.shards(ctx)
	if err != nil {
		return err
	}
	r, err := s.begin("table")
	if err != nil {
		return err
	}
	bytes, largest := 0, 0
	for _, shard := range shards {
		bytes += len(shard)
		largest = max(largest, len(shard))
	}
	if err := s.end(r); err != nil {
		return err
	}
	r.add("Secrets", float64(secrets))
	r.add("KiB", float64(bytes)/1024)
	r.add("KiB of the largest shard", float64(largest)/1024)
	return nil
}
