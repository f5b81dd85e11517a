package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// siege is an attack at ten times the size that stopped the first version.
type siege struct {
	name, kind         string
	connections, least int // least is what stops it however small the scale
}

var sieges = []siege{
	{"slow uploads", attackUploads, 640, 160},
	{"idle connections", attackIdle, 120_000, 12_000},
	{"half headers", attackHeaders, 60_000, 6000},
	{"junk tokens", attackTokens, 18_000, 1800},
}

// attackers is from how many addresses each attack comes.
var attackers = []int{1, 50}

func (s siege) prefix(addresses int) string { return fmt.Sprintf("%s from %d: ", s.name, addresses) }

func uploadTargets() (targets []target) {
	for _, s := range sieges {
		for _, n := range attackers {
			prefix := s.prefix(n)
			targets = append(targets, target{prefix + "publish p99 over p99 without", false, 3}, target{prefix + "healthy refused", false, 0},
				target{prefix + "killed for memory", false, 0})
		}
	}
	return targets
}

// runUploads besieges the publish API with what costs the attacker little.
func runUploads(ctx context.Context, b *bench, m *measured) error {
	for _, siege := range sieges {
		if b.sieges != "" && !slices.Contains(strings.Split(b.sieges, ","), siege.name) {
			continue
		}
		for _, addresses := range attackers {
			if err := b.besiege(ctx, m, siege, addresses); err != nil {
				return fmt.Errorf("%s%w", siege.prefix(addresses), err)
			}
		}
	}
	return nil
}

// besieger is the attacking tenant's group.
const besieger = 0

func (b *bench) besiege(ctx context.Context, m *measured, siege siege, addresses int) error {
	prefix := siege.prefix(addresses)
	setup := props{tenants: crowd(1, func(int) []subscription { return []subscription{{behaviour: behaviourOK}} })}
	set := func(*load) {}
	if siege.kind == attackTokens {
		api, err := startAPIServer(ctx, junkReview)
		if err != nil {
			return err
		}
		defer api.close()
		config := filepath.Join(b.dir, "kubeconfig")
		if err := api.kubeconfig(config); err != nil {
			return err
		}
		setup.arguments = []string{"--ingest-auth=kubernetes", "--kubeconfig=" + config}
		set = api.tokens
	}
	s, err := b.newStage(ctx, setup)
	if err != nil {
		return err
	}
	ended := sync.OnceFunc(s.end) // the control is measured alone
	defer ended()
	without, err := s.measure(ctx, 50, b.spell(20*time.Second, 2*time.Second), set)
	if err != nil {
		return err
	}
	a := siege.attack(b, s.api, addresses)
	f, err := b.startFlood(ctx, a)
	if err != nil {
		return err
	}
	// The attackers need a moment to get in.
	err = pause(ctx, b.spell(5*time.Second, 2*time.Second))
	with, busy := wellness{}, 0.0
	if err == nil {
		used, begun := s.cpu(), time.Now()
		with, err = s.measure(ctx, 50, b.spell(30*time.Second, 3*time.Second), set)
		busy = (s.cpu() - used).Seconds() / time.Since(begun).Seconds()
	}
	var sum flooded
	if err := errors.Join(err, f.stop(&sum)); err != nil {
		return err
	}
	b.progress("  %s%s", prefix, sum)
	m.add(prefix+"publish p99 over p99 without", ratio(with.Publish99, without.Publish99, 3, 10))
	m.add(prefix+"healthy refused", float64(with.Refused+with.Broken))
	m.add(prefix+"publish p99 (ms)", with.Publish99)
	m.add(prefix+"publish p99 without (ms)", without.Publish99)
	m.add(prefix+"end to end p99 (ms)", with.P99)
	m.add(prefix+"healthy missing", float64(with.Missing))
	m.add(prefix+"attackers' connections", float64(a.Connections))
	m.add(prefix+"CPU of the dispatcher (cores)", busy)
	s.limit.report(m, prefix)
	if err := s.alive(); err != nil {
		return err
	}
	ended()
	with, without, err = b.control(ctx, siege, addresses)
	m.add(prefix+"control publish p99 (ms)", with.Publish99)
	m.add(prefix+"control publish p99 without (ms)", without.Publish99)
	m.add(prefix+"control refused", float64(with.Refused+with.Broken))
	return err
}

// attack describes the siege of an address.
func (s siege) attack(b *bench, target string, addresses int) attack {
	return attack{Kind: s.kind, Target: target, Namespace: namespaceOf(besieger), From: localAddresses(addresses), Connections: s.size(b, addresses)}
}

// portsOfAddress is how many connections an address can have to another: the system's ephemeral ports, and some to spare.
const portsOfAddress = 20_000

// size is how many connections attack: ten times what did harm, at the run's scale, and no more than ports allow and
// half again what the dispatcher may open at all.
func (s siege) size(b *bench, addresses int) int {
	return min(b.share(s.connections, s.least), portsOfAddress*addresses, int(b.descriptors)*3/2)
}

// localAddresses returns n loopback addresses from 127.0.2.2 on.
func localAddresses(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("127.0.2.%d", 2+i)
	}
	return all
}

// tokens makes a load publish with valid tokens, a new one for each second or so: a token is not always known already.
func (a *apiServer) tokens(l *load) {
	const each = 50
	var mu sync.Mutex
	issued := map[int]string{}
	l.token = func(id identity) string {
		mu.Lock()
		defer mu.Unlock()
		n := id.run*1_000_000 + id.number/each
		if issued[n] == "" {
			issued[n] = a.issue(namespaceOf(l.first), n)
		}
		return issued[n]
	}
}
