package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

func main() {
	var err error
	switch arguments := os.Args[1:]; {
	case len(arguments) > 0 && arguments[0] == "receiver":
		err = receive(slices.Contains(arguments, "standard"))
	case len(arguments) > 0 && arguments[0] == "trap":
		err = runTrap()
	case len(arguments) > 0 && arguments[0] == "flood":
		err = runFlood(arguments[1:])
	case len(arguments) > 0 && arguments[0] == "control":
		err = runControl(arguments[1:])
	case len(arguments) > 0 && arguments[0] == "dispatcher":
		err = runProfiled(arguments[1:])
	default:
		err = run(arguments)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	eventflow string   // the binary
	base      string   // an older one, which rates are compared with
	arguments []string // further ones of the dispatcher
	cgroup    string   // folder for cgroups; the bench enforces limits by itself if empty
	floods    string   // folder for cgroups of the processor controller, for floods; they share it as others do if empty
	sieges    string   // names of the attacks of the scenario uploads; all if empty
	dir       string   // where the stores are
	store     string   // their kind
	database  *postgrestest.Server
	profiles  string
	scale     float64
	pending   int
	// How long scenarios take.
	rawFor, steadyFor, deadFor, pendingFor, idleFor time.Duration
	soakFor, killEvery                              time.Duration
	patience                                        time.Duration // until everything arrived

	out         io.Writer
	self        *process
	receiver    *remote
	trap        *remoteTrap
	result      result
	runs        int
	turns       int    // of the scenario rates
	descriptors uint64 // that each process may open
	lastRaw     *rawResult
	rawAt       time.Time
}

// options are the command line's.
type options struct {
	scenarios, json, receiver string
	repetitions               int
	strict                    bool
}

func (b *bench) flags(o *options) *flag.FlagSet {
	names := make([]string, 0, len(scenarios))
	for i := range scenarios {
		if !scenarios[i].onlyNamed {
			names = append(names, scenarios[i].name)
		}
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.scenarios, "scenarios", strings.Join(names, ","), "which to run, in this order")
	f.IntVar(&o.repetitions, "repetitions", 3, "how often to run each; those that take minutes run once")
	f.BoolVar(&o.strict, "strict", false, "fail if a figure is missed, not only if events are lost")
	f.StringVar(&o.json, "json", "", "file for the result as JSON")
	f.StringVar(&o.receiver, "receiver", "standard", "standard: on top of net/http, as receivers are; or lean: just enough of HTTP to answer, which leaves more of the machine to the raw loop")
	f.StringVar(&b.eventflow, "eventflow", "", "binary to measure; it is built if empty")
	f.StringVar(&b.store, "store", storeEmbedded, "where events are kept: embedded, or postgres, a server that is started on this machine")
	f.StringVar(&b.dir, "dir", "bin/bench", "folder for stores; its file system's fsync is part of what is measured")
	f.StringVar(&b.profiles, "profile", "", "folder for CPU, heap and lock profiles of the dispatcher, which is then not the binary but the same code in this program")
	f.StringVar(&b.base, "base", "", "older binary that the scenario rates compares with")
	f.Func("dispatcher-args", "further arguments of the dispatcher, separated by spaces", func(text string) error {
		b.arguments = strings.Fields(text)
		return nil
	})
	f.StringVar(&b.cgroup, "cgroup", "", "folder in which to make cgroups for limits on memory, such as /sys/fs/cgroup, or /sys/fs/cgroup/memory with version 1; without, the bench kills a dispatcher that passes its limit")
	f.StringVar(&b.floods, "flood-cgroup", "", "folder in which to make cgroups with cpu.idle=1, such as /sys/fs/cgroup/cpu: floods then run on what the others leave, as if on a machine of their own")
	f.StringVar(&b.sieges, "sieges", "", "which attacks of the scenario uploads to run, separated by commas; all if empty")
	f.Float64Var(&b.scale, "scale", 1, "factor on the number of events of the throughput scenarios, and on the size and length of hostile ones")
	f.DurationVar(&b.soakFor, "for", 5*time.Minute, "how long the scenario soak takes")
	f.DurationVar(&b.killEvery, "kill-every", 0, "how often the scenario soak kills the dispatcher; never if 0")
	f.IntVar(&b.pending, "pending", 1_000_000, "deliveries of the scenario pending")
	f.DurationVar(&b.rawFor, "raw-for", 3*time.Second, "how long each run of the raw loop takes")
	f.DurationVar(&b.steadyFor, "steady-for", 20*time.Second, "how long to publish at a steady rate")
	f.DurationVar(&b.deadFor, "dead-for", 3*time.Minute, "how long the scenario dead takes")
	f.DurationVar(&b.pendingFor, "pending-for", 15*time.Minute, "how long to wait until all of the scenario pending were refused once")
	f.DurationVar(&b.idleFor, "idle-for", 30*time.Second, "how long the scenario idle takes")
	f.DurationVar(&b.patience, "patience", time.Minute, "how long to wait for what has not arrived")
	return f
}

func run(arguments []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(400) // generator and raw loop are to cost little
	b := &bench{out: os.Stderr, self: &process{pid: os.Getpid()}}
	var o options
	if err := b.flags(&o).Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	chosen, err := choose(o.scenarios)
	if err != nil {
		return err
	}
	if err := b.prepare(ctx, o.receiver); err != nil {
		return err
	}
	defer func() {
		_ = b.receiver.kill()
		if b.trap != nil {
			_ = b.trap.kill()
		}
	}()
	if err := b.startDatabase(); err != nil {
		return err
	}
	failed := errors.Join(b.runAll(ctx, chosen, o.repetitions), b.stopDatabase())
	if err := b.result.writeTable(os.Stdout); err != nil {
		return err
	}
	if missed := b.result.missed(); o.strict && len(missed) > 0 {
		failed = errors.Join(failed, fmt.Errorf("missed: %s", strings.Join(missed, "; ")))
	}
	if o.json != "" {
		failed = errors.Join(failed, writeFile(o.json, b.result.writeJSON))
	}
	return failed
}

func choose(names string) ([]scenario, error) {
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q", name)
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

// prepare builds and starts what all scenarios share.
func (b *bench) prepare(ctx context.Context, receiver string) error {
	if receiver != "lean" && receiver != "standard" {
		return fmt.Errorf("-receiver=%q: want lean or standard", receiver)
	}
	for _, dir := range []string{b.dir, b.profiles} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o750); err != nil {
				return err
			}
		}
	}
	var err error
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.eventflow == "" && b.profiles == "" {
		if b.eventflow, err = build(ctx, b.dir, b.out); err != nil {
			return err
		}
	}
	b.result.Machine, err = describeMachine(b.dir, runtime.Version(), runtime.NumCPU())
	if err != nil {
		return err
	}
	b.descriptors = raiseDescriptors(wantDescriptors)
	b.result.Started, b.result.Receiver = time.Now().UTC().Format(time.RFC3339), receiver
	b.receiver, err = startReceiver(ctx, receiver == "standard")
	return err
}

// runAll runs the scenarios in turn, and all of them again for each repetition, so that a disturbance of the machine
// does not hit one scenario alone. It goes on after a failure and returns all of them.
func (b *bench) runAll(ctx context.Context, chosen []scenario, repetitions int) error {
	for i := range chosen {
		b.result.Scenarios = append(b.result.Scenarios, &measured{Name: chosen[i].name, Work: chosen[i].work})
	}
	var errs []error
	for repetition := range repetitions {
		for i := range chosen {
			s, m := &chosen[i], b.result.Scenarios[i]
			if ctx.Err() != nil || (s.once && repetition > 0) || (s.embedded && b.store != storeEmbedded) || m.Error != "" {
				continue
			}
			b.progress("%s: %s (%d)", s.name, s.work, repetition+1)
			if err := s.run(ctx, b, m); err != nil {
				m.Error = err.Error()
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			}
		}
	}
	for i := range chosen {
		b.result.Scenarios[i].judge(b.targetsOf(&chosen[i]))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (b *bench) progress(format string, arguments ...any) {
	fmt.Fprintf(b.out, format+"\n", arguments...)
}

// nextRun numbers the runs, so that what arrives late is not counted in another.
func (b *bench) nextRun() int {
	b.runs++
	return b.runs % 1000
}

func (b *bench) scaled(events int) int { return max(2000, int(float64(events)*b.scale)) / 2000 * 2000 }

// wantDescriptors is how many descriptors each process should be able to open for the hostile scenarios at full size.
const wantDescriptors = 200_000

// share is a number of a hostile scenario at the run's scale.
func (b *bench) share(full, least int) int { return max(least, int(float64(full)*min(b.scale, 1))) }

// spell is a length of a hostile scenario at the run's scale.
func (b *bench) spell(full, least time.Duration) time.Duration {
	return max(least, time.Duration(float64(full)*min(b.scale, 1)))
}

// rawFresh is how long the raw loop's result may be taken for what the machine can do now.
const rawFresh = 15 * time.Second

// rawBefore is the raw loop's last result, if it is fresh.
func (b *bench) rawBefore(ctx context.Context) (rawResult, error) {
	if b.lastRaw != nil && time.Since(b.rawAt) < rawFresh {
		return *b.lastRaw, nil
	}
	return b.rawAfter(ctx)
}

// rawAfter runs the raw loop.
func (b *bench) rawAfter(ctx context.Context) (rawResult, error) {
	r, err := b.raw(ctx, b.rawFor)
	if err != nil {
		return r, err
	}
	b.progress("  raw: %.0f/s, %.0f + %.0f µs of CPU each, others kept %.2f cores busy", r.PerSecond, r.Sender, r.Receiver, r.Others)
	b.result.Raw = append(b.result.Raw, r)
	b.lastRaw, b.rawAt = &r, time.Now()
	return r, nil
}
