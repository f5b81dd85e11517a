package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options are the flags.
type options struct {
	subscriptions, namespaces, bare, clients int
	tokenBytes, rotated, flapping            int
	flapFor, idleFor, limit                  time.Duration
	rows                                     []string
	json, binary, keep                       string
	strict                                   bool
}

func parse(arguments []string) (options, error) {
	o, rows := options{}, ""
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.IntVar(&o.subscriptions, "subscriptions", 1000, "how many are applied at once")
	flags.IntVar(&o.namespaces, "namespaces", 0, "over how many namespaces; without, one for each hundred")
	flags.IntVar(&o.bare, "bare", 2000, "how many are created, at most, to learn what bare creates cost")
	flags.IntVar(&o.clients, "clients", 16, "how many create at once")
	flags.IntVar(&o.tokenBytes, "token-bytes", 0, "length of a header's value in each, of random characters; 0 for no header")
	flags.IntVar(&o.rotated, "rotated", 500, "how many subscriptions share the Secret that is rotated")
	flags.IntVar(&o.flapping, "flapping", 1000, "how many endpoints flap")
	flags.DurationVar(&o.flapFor, "flap-for", time.Minute, "how long they do")
	flags.DurationVar(&o.idleFor, "idle-for", 30*time.Second, "how long nothing happens")
	flags.DurationVar(&o.limit, "limit", 40*time.Minute, "how long all of it may take")
	flags.StringVar(&rows, "rows", strings.Join(rowNames(), ","), "the rows to run")
	flags.StringVar(&o.json, "json", "", "file to write the result to")
	flags.StringVar(&o.binary, "binary", "", "the eventflow binary; without, this checkout is built")
	flags.StringVar(&o.keep, "keep", "", "folder for logs and the audit log, which stay there; without, a temporary one that goes")
	flags.BoolVar(&o.strict, "strict", false, "fail if a goal is missed")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if o.namespaces == 0 {
		o.namespaces = max(1, o.subscriptions/100)
	}
	o.rows = strings.Split(rows, ",")
	for _, name := range o.rows {
		if !slices.Contains(rowNames(), name) {
			return o, fmt.Errorf("there is no row %q; there are %v", name, rowNames())
		}
	}
	if o.subscriptions < 1 || o.namespaces < 1 || o.clients < 1 {
		return o, errors.New("-subscriptions, -namespaces and -clients must be positive")
	}
	return o, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.Discard())
	debug.SetGCPercent(50) // this process watches all subscriptions, on the machine that it measures
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "scale: %v\n", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// run measures, reports what there is, and stops everything.
func run(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	s := &stage{options: o, started: time.Now()}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	failure := s.measure(ctx)
	if failure != nil {
		s.result.Error = failure.Error()
		s.showLogs()
	}
	s.result.show(os.Stdout)
	if o.json != "" {
		failure = errors.Join(failure, s.result.save(o.json))
	}
	if missed := s.result.missed(); failure == nil && o.strict && len(missed) > 0 {
		failure = fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return failure
}

func (r *result) save(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
