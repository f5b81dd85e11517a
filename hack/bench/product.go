package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/spf13/pflag"

	"github.com/clinikapi/eventflow/dispatcher"
)

// startTimeout is how long a dispatcher may take until it is ready.
const startTimeout = 2 * time.Minute

// product is a dispatcher under test, with a folder of manifests and a store of its own.
type product struct {
	*process
	bench    *bench
	dir      string
	api, ops string
	profile  string // address of its profiles, if asked for
	store    string // as the command line names it
	log      *os.File
	limit    *limit // of its memory; none if nil
	// What hostile runs set.
	arguments, environment []string
	readyWithin            time.Duration // startTimeout if zero
	host                   string        // its addresses' own, which then stay through restarts
	Started                time.Duration // from the start of the process until it was ready
}

// endpoint is one subscription's.
type endpoint struct {
	behaviour string
	closed    bool   // nobody listens
	retry     string // of spec.retry, in YAML; the default if empty
	spec      string // a further line of the spec, in YAML
}

// newProduct writes manifests of as many groups of endpoints, a namespace each, and starts a dispatcher on them.
func (b *bench) newProduct(ctx context.Context, groups int, endpoints func(group int) []endpoint) (*product, error) {
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return nil, err
	}
	p := &product{bench: b, dir: dir}
	if p.store, err = b.newStore(ctx, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.writeManifests(groups, endpoints); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

const signingManifest = `apiVersion: v1
kind: Secret
metadata: {name: signing, namespace: %s}
stringData: {key: %s}
---
`

const subscriptionManifest = `apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: endpoint-%d, namespace: %s}
spec:
  url: http://%s/%s/%d
  events: ["*"]
  signing: {secretRef: {name: signing, key: key}}
  retry: {%s}
  %s
---
`

func (p *product) writeManifests(groups int, endpoints func(int) []endpoint) error {
	if err := os.Mkdir(filepath.Join(p.dir, "manifests"), 0o700); err != nil {
		return err
	}
	closed, err := freeAddress("127.0.0.1")
	if err != nil {
		return err
	}
	number := 0
	for group := range groups {
		var text bytes.Buffer
		namespace := namespaceOf(group)
		fmt.Fprintf(&text, signingManifest, namespace, signingKey)
		for _, e := range endpoints(group) {
			address := p.bench.receiver.address
			if e.closed {
				address = closed
			}
			fmt.Fprintf(&text, subscriptionManifest, number, namespace, address, e.behaviour, number, e.retry, e.spec)
			number++
		}
		if err := os.WriteFile(filepath.Join(p.dir, "manifests", namespace+".yaml"), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress returns an address that nobody listens on.
func freeAddress(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts the dispatcher, again if it was killed, and waits until it is ready.
func (p *product) start(ctx context.Context) error {
	var err error
	for _, address := range []*string{&p.api, &p.ops, &p.profile} {
		if p.host != "" && *address != "" {
			continue
		}
		if *address, err = freeAddress(cmp.Or(p.host, "127.0.0.1")); err != nil {
			return err
		}
	}
	program, arguments := p.bench.eventflow, []string{"dispatcher",
		"--routes=" + filepath.Join(p.dir, "manifests"), "--store=" + p.store,
		"--listen=" + p.api, "--ops-listen=" + p.ops, "--ingest-auth=none", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8"}
	if p.bench.profiles != "" {
		if program, err = os.Executable(); err != nil {
			return err
		}
		arguments = append(arguments, "--profile-listen="+p.profile)
	}
	arguments = append(append(arguments, p.arguments...), p.bench.arguments...) // the last of a flag holds
	if p.log, err = os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.Env = append(os.Environ(), p.environment...)
	begun := time.Now()
	if err := p.limit.start(cmd); err != nil {
		return err
	}
	p.process = &process{pid: cmd.Process.Pid, cmd: cmd}
	if err := p.waitReady(ctx); err != nil {
		_ = p.kill()
		return fmt.Errorf("%w; its log:\n%s", err, p.logged())
	}
	p.Started = time.Since(begun)
	return nil
}

func (p *product) waitReady(ctx context.Context) error {
	within := cmp.Or(p.readyWithin, startTimeout)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err := ask(ctx, http.MethodGet, "http://"+p.ops+"/readyz", nil); err == nil {
			return nil
		}
		if state := statFields(p.pid); len(state) > 0 && state[0] == "Z" {
			return errors.New("the dispatcher ended")
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the dispatcher was not ready within %s", within)
		}
	}
}

// logged returns the end of the dispatcher's log.
func (p *product) logged() []byte {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return nil
	}
	return text[max(0, len(text)-2000):]
}

// end kills the dispatcher and removes what it kept.
func (p *product) end() {
	_ = p.kill()
	_ = p.log.Close()
	_ = os.RemoveAll(p.dir)
}

// metric reads a figure from /metrics; 0 if there is none of that name.
func (p *product) metric(ctx context.Context, name string) float64 {
	text, err := ask(ctx, http.MethodGet, "http://"+p.ops+"/metrics", nil)
	if err != nil {
		return 0
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if base, _, _ := strings.Cut(key, "{"); ok && base == name {
			number, _ := strconv.ParseFloat(value, 64)
			sum += number
		}
	}
	return sum
}

// profiled writes a CPU profile of the given time, and then the heap and what was allocated, if profiles are wanted. It
// returns at once; the function that it returns waits for the files.
func (p *product) profiled(ctx context.Context, name string, duration time.Duration) (wait func() error) {
	if p.bench.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		seconds := strconv.Itoa(max(1, int(duration.Seconds())))
		var errs []error
		for _, kind := range []string{"profile?seconds=" + seconds, "heap", "allocs", "mutex", "block"} {
			text, err := ask(ctx, http.MethodGet, "http://"+p.profile+"/debug/pprof/"+kind, nil)
			if err == nil {
				base, _, _ := strings.Cut(kind, "?")
				err = os.WriteFile(filepath.Join(p.bench.profiles, name+"."+base), text, 0o600)
			}
			errs = append(errs, err)
		}
		done <- errors.Join(errs...)
	}()
	return func() error { return <-done }
}

// runProfiled is the dispatcher's command with one more address that serves profiles. The product has none: whoever may
// read its metrics need not be able to slow it down.
func runProfiled(arguments []string) error {
	var options dispatcher.Options
	flags := pflag.NewFlagSet("dispatcher", pflag.ContinueOnError)
	options.AddFlags(flags)
	address := flags.String("profile-listen", "", "address of /debug/pprof")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	go func() { fail(serveHTTP(listener, mux)) }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	options.Version = "bench"
	options.Logger = funcr.New(func(_, line string) { fmt.Fprintln(os.Stderr, line) }, funcr.Options{})
	return dispatcher.Run(ctx, options)
}

// build builds the eventflow binary into dir, as make build does.
func build(ctx context.Context, dir string, progress io.Writer) (string, error) {
	path := filepath.Join(dir, "eventflow")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/clinikapi/eventflow")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build eventflow: %w", err)
	}
	return path, nil
}
