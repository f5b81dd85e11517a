package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// volume is a small file system of its own, in memory.
type volume struct{ dir string }

// mountVolume mounts a tmpfs, as only root may.
func mountVolume(parent string, bytes int64) (*volume, error) {
	dir, err := os.MkdirTemp(parent, "volume")
	if err != nil {
		return nil, err
	}
	if err := syscall.Mount("eventflow-bench", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a tmpfs: %w", err), os.Remove(dir))
	}
	return &volume{dir}, nil
}

func (v *volume) unmount() error {
	if err := syscall.Unmount(v.dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", v.dir, err)
	}
	return os.Remove(v.dir)
}

func (v *volume) free() uint64 {
	var stat syscall.Statfs_t
	if syscall.Statfs(v.dir, &stat) != nil {
		return 0
	}
	return stat.Bavail * uint64(stat.Bsize)
}

// fill takes all that is free.
func (v *volume) fill() (err error) {
	file, err := os.Create(v.ballast())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for block := make([]byte, 64<<10); len(block) > 0; {
		n, err := file.Write(block)
		if errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
		_ = n
	}
	return nil
}

func (v *volume) relieve() error { return os.Remove(v.ballast()) }

func (v *volume) ballast() string { return filepath.Join(v.dir, "ballast") }

// The tenants of runFullVolume beside the healthy one.
const (
	groupSmall  = 0 // small events, held back and cancelled
	groupLarge  = 1 // events of 100 KB, held back and cancelled
	groupKept   = 2 // held back, and delivered in the end
	groupReplay = 3 // delivered, and replayed
	volumeCrowd = 4
)

const suspended = "suspend: true"

// fullVolume is a run of the scenario.
type fullVolume struct {
	*stage
	bench  *bench
	m      *measured
	volume *volume
	failed int // starts
	inRow  int // starts that failed since one did not
	ended  int // times it ended by itself
	kills  int
}

// runFullVolume fills a volume in every way that there is, and looks whether a dispatcher gets out of it by itself.
func runFullVolume(ctx context.Context, b *bench, m *measured) (err error) {
	if os.Geteuid() != 0 {
		b.progress("  only root may mount a volume: it is not measured")
		return nil
	}
	v, err := mountVolume(b.dir, int64(b.share(1<<30, 192<<20)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.unmount()) }()
	s, err := b.newStage(ctx, props{store: filepath.Join(v.dir, "store"), tenants: crowd(volumeCrowd, func(i int) []subscription {
		if i == groupReplay {
			return []subscription{{behaviour: behaviourOK}}
		}
		return []subscription{{behaviour: behaviourOK, spec: suspended}}
	})})
	if err != nil {
		return err
	}
	defer s.end()
	s.readyWithin = b.spell(20*time.Second, 8*time.Second)
	f := &fullVolume{stage: s, bench: b, m: m, volume: v}
	return f.run(ctx)
}

func (f *fullVolume) run(ctx context.Context) error {
	kept, err := f.publish(ctx, groupKept, 2000, 10, bodySize)
	if err != nil {
		return err
	}
	replayed, err := f.publish(ctx, groupReplay, f.bench.share(20_000, 2000)/100*100, 100, bodySize)
	if err != nil {
		return err
	}
	if err := f.trap.wait(ctx, replayed.Run, replayed.acknowledged(), f.bench.patience); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{f.fillByPublishing, f.replays, f.cancel, f.starts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := f.recover(ctx); err != nil {
		return err
	}
	return f.audit(ctx, kept, replayed)
}

// publish publishes to a tenant until all is acknowledged, or nothing is for a while: the volume is full.
func (f *fullVolume) publish(ctx context.Context, group, events, batch, size int) (*load, error) {
	l := f.newLoad(group, 1, 1, events, 4, batch)
	l.data = dataOf(size)
	stop, err := f.beside(ctx, l, closed)
	if err != nil {
		return nil, err
	}
	for before, idle := -1, 0; idle < 3; {
		if err := pause(ctx, time.Second); err != nil {
			return nil, errors.Join(err, stop())
		}
		now := l.acknowledged()
		if now == events {
			break
		}
		if idle++; now > before {
			idle = 0
		}
		before = now
		f.revive(ctx)
	}
	f.bench.progress("  tenant %d: %d of %d events acknowledged, %d MiB free", group, l.acknowledged(), events, f.volume.free()>>20)
	return l, stop()
}

// revive starts a dispatcher that ended by itself, as a kubelet would.
func (f *fullVolume) revive(ctx context.Context) {
	if f.gone() && !f.hopeless() {
		f.ended++
		f.bench.progress("  it ended by itself: %.200s", lastLine(f.logged()))
		f.restart(ctx)
	}
}

// hopeless reports whether starts fail one after the other, so that more of them would show nothing new.
func (f *fullVolume) hopeless() bool { return f.inRow >= 3 }

// restart kills and starts it, and reports whether it became ready.
func (f *fullVolume) restart(ctx context.Context) bool {
	err := f.again(ctx)
	if err != nil {
		f.failed++
		f.inRow++
		f.bench.progress("  a start failed: %.200s", lastLine([]byte(err.Error())))
		return false
	}
	f.inRow = 0
	return true
}

func (f *fullVolume) fillByPublishing(ctx context.Context) error {
	_, err := f.publish(ctx, groupSmall, int(f.volume.free()/4/bodySize)/500*500, 500, bodySize)
	if err != nil {
		return err
	}
	f.kill9(ctx)
	_, err = f.publish(ctx, groupLarge, int(f.volume.free()/100_000*2), 4, 100_000)
	return err
}

// kill9 kills it and starts it again.
func (f *fullVolume) kill9(ctx context.Context) {
	if !f.hopeless() {
		f.kills++
		f.restart(ctx)
	}
}

// replays replays what was delivered, again and again, until it is refused or there is nothing to be had by it.
func (f *fullVolume) replays(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, f.bench.spell(time.Minute, 5*time.Second))
	defer cancel()
	n := 0
	for ; limited.Err() == nil && n < 50 && !f.hopeless(); n++ {
		_, err := f.call(limited, http.MethodPost, namespaceOf(groupReplay)+"/deliveries/replay", []byte(`{"state":"Delivered"}`))
		if err != nil {
			f.revive(ctx)
		}
	}
	f.bench.progress("  %d replays asked for, %d MiB free", n, f.volume.free()>>20)
	return ctx.Err()
}

// cancel deletes the subscriptions that hold the most, kills the dispatcher meanwhile, and waits until nothing is left of
// them.
func (f *fullVolume) cancel(ctx context.Context) error {
	for _, group := range []int{groupSmall, groupLarge} {
		if err := f.write(tenant{group: group}); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, f.bench.spell(2*time.Minute, 20*time.Second))
	defer cancel()
	for kills := 0; ; {
		wait := time.Second + rand.N(time.Second)
		if pause(limited, wait) != nil {
			break
		}
		f.revive(ctx)
		if f.hopeless() {
			break
		}
		if kills < 3 {
			kills++
			f.kill9(ctx)
			continue
		}
		if f.pendingOf(limited, groupSmall) == 0 && f.pendingOf(limited, groupLarge) == 0 {
			break
		}
	}
	if f.hopeless() {
		return ctx.Err()
	}
	f.bench.progress("  subscriptions deleted: %d and %d deliveries still pending, %d MiB free",
		f.pendingOf(ctx, groupSmall), f.pendingOf(ctx, groupLarge), f.volume.free()>>20)
	return ctx.Err()
}

// pendingOf is how many deliveries of a tenant are pending; -1 if that cannot be told.
func (f *fullVolume) pendingOf(ctx context.Context, group int) int {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	n := 0
	if f.listed(limited, namespaceOf(group), "", "Pending", func(string, string) { n++ }) != nil {
		return -1
	}
	return n
}

// starts starts the dispatcher again and again while not a byte is free.
func (f *fullVolume) starts(ctx context.Context) error {
	if err := f.volume.fill(); err != nil {
		return err
	}
	f.bench.progress("  %d bytes are free", f.volume.free())
	slowest := time.Duration(0)
	for range f.bench.share(20, 4) {
		if f.hopeless() {
			break
		}
		f.kills++
		if f.restart(ctx) {
			slowest = max(slowest, f.Started)
		}
		if err := pause(ctx, rand.N(time.Second)); err != nil {
			return err
		}
		if f.gone() {
			f.ended++
		}
	}
	if slowest == 0 {
		return f.volume.relieve()
	}
	f.m.add("slowest start with no byte free (s)", slowest.Seconds())
	return f.volume.relieve()
}

// recover waits until a healthy tenant's events are accepted and delivered again.
func (f *fullVolume) recover(ctx context.Context) error {
	freed := time.Now()
	if f.gone() {
		f.restart(ctx)
	}
	w, err := f.measure(ctx, 20, 5*time.Second, nil)
	if err != nil {
		return err
	}
	recovered := 0.0
	if w.Missing == 0 {
		recovered = 1
	}
	f.m.add("recovered (0 or 1)", recovered)
	f.m.add("refused after there was room", float64(w.Refused+w.Broken))
	f.m.add("until all was delivered (s)", time.Since(freed).Seconds())
	return nil
}

// audit lets the tenant that was held back have its events, and looks for what was lost.
func (f *fullVolume) audit(ctx context.Context, kept, replayed *load) error {
	f.m.add("starts that failed", float64(f.failed))
	f.m.add("ended by itself", float64(f.ended))
	f.m.add("kill -9", float64(f.kills))
	f.limit.report(f.m, "")
	if f.gone() {
		f.m.add("lost", float64(kept.acknowledged()))
		return nil
	}
	if err := f.write(tenant{group: groupKept, subscriptions: []subscription{{behaviour: behaviourOK}}}); err != nil {
		return err
	}
	if err := f.trap.wait(ctx, kept.Run, kept.acknowledged(), f.bench.patience); err != nil {
		return err
	}
	total := 0
	for _, l := range []*load{kept, replayed} {
		lost, crossed, _, err := f.lost(ctx, l)
		if err != nil {
			return err
		}
		total += lost + crossed
	}
	f.m.add("lost", float64(total))
	return nil
}

// lastLine of a log.
func lastLine(log []byte) string {
	line := ""
	for next := range lines(log) {
		if next != "" {
			line = next
		}
	}
	return line
}
