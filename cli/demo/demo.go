package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clinikapi/eventflow/config/samples"
	"github.com/clinikapi/eventflow/dispatcher"
)

const (
	// startTimeout is how long the dispatcher may take to be ready.
	startTimeout = time.Minute
	// arrival is how long the sample events may take to arrive; each refusal that was asked for adds to it.
	arrival = time.Minute
)

// options are those of "eventflow demo".
type options struct {
	version string
	// listen is the address of the dispatcher's API.
	listen string
	// once ends after the sample events arrived.
	once      bool
	failFirst int
	out       io.Writer
}

// Command returns "eventflow demo" with its subcommands.
func Command(version string) *cobra.Command {
	o := options{version: version}
	command := &cobra.Command{
		Use:   "demo",
		Short: "See webhooks delivered on this machine, without a cluster",
		Long: "Demo starts a dispatcher on the sample subscriptions, and an endpoint for them. It publishes the sample events,\n" +
			"shows them arrive, signed and verified, and tells how to publish another one. Ctrl-C ends and removes all of it.",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if o.failFirst < 0 {
				return errors.New("--fail-first takes 0 or more")
			}
			o.out = command.OutOrStdout()
			return run(command.Context(), &o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the dispatcher's API; port 0 takes a free one")
	flags.BoolVar(&o.once, "once", false, "end after the sample events arrived, instead of at Ctrl-C")
	flags.IntVar(&o.failFirst, "fail-first", 0, "let the endpoint refuse the first N attempts of each delivery, to see retries")
	command.AddCommand(receiveCommand(), publishCommand())
	return command
}

// session is one run of the demo.
type session struct {
	*options
	samples *samples.Set
	dir     string // of everything temporary
	arrived chan attempt
	// ended gets the error of each part that ends; nil if it was told to.
	ended chan error
	parts sync.WaitGroup

	mu sync.Mutex // of out
}

// run does it all. It returns nil if it was interrupted.
func run(ctx context.Context, o *options) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &session{options: o, arrived: make(chan attempt, 1024), ended: make(chan error, 2)}
	if s.samples, err = samples.Read(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "eventflow-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	defer s.parts.Wait()
	defer stop()

	endpoint, err := s.startReceiver(ctx)
	if err != nil {
		return err
	}
	api, err := s.startDispatcher(ctx, endpoint)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err := s.demonstrate(ctx, api); err != nil || s.once || ctx.Err() != nil {
		return err
	}
	s.say("\n%s", s.instructions(api))
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.ended:
		return err
	}
}

// start runs a part until ctx ends.
func (s *session) start(part func() error) {
	s.parts.Go(func() {
		if err := part(); err != nil {
			s.ended <- err
		}
	})
}

// startReceiver starts the endpoint, and returns its URL.
func (s *session) startReceiver(ctx context.Context) (endpoint string, err error) {
	r := &receiver{failFirst: s.failFirst, report: s.show}
	if r.keys, err = parseKeys(s.samples.Keys); err != nil {
		return "", err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	endpoint = "http://" + listener.Addr().String()
	s.say("• an endpoint at %s, which verifies every signature", endpoint)
	s.start(func() error { return serve(ctx, listener, r.handler()) })
	return endpoint, nil
}

// show shows an attempt. Nobody may wait for arrived any more.
func (s *session) show(a attempt) {
	s.say("  endpoint │ %s", a)
	select {
	case s.arrived <- a:
	default:
	}
}

// startDispatcher starts the dispatcher on the samples, and returns its address.
func (s *session) startDispatcher(ctx context.Context, endpoint string) (api string, err error) {
	manifests, err := s.samples.Manifests(endpoint)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(s.manifests(), 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(s.manifests(), "samples.yaml"), manifests, 0o600); err != nil {
		return "", err
	}
	s.say("• a dispatcher on %s, with its store beside it", s.manifests())
	ready := make(chan string, 1)
	log, err := os.Create(filepath.Join(s.dir, "dispatcher.log"))
	if err != nil {
		return "", err
	}
	o := s.dispatcherOptions(func(api, _ string) { ready <- api })
	o.Logger = logr.FromSlogHandler(slog.NewJSONHandler(log, nil))
	s.start(func() error { return errors.Join(dispatcher.Run(ctx, o), log.Close()) })
	late := time.NewTimer(startTimeout)
	defer late.Stop()
	select {
	case api := <-ready:
		return api, nil
	case err := <-s.ended:
		return "", err
	case <-late.C:
		return "", fmt.Errorf("the dispatcher was not ready within %s", startTimeout)
	case <-ctx.Done():
		return "", nil
	}
}

func (s *session) manifests() string { return filepath.Join(s.dir, "manifests") }

// dispatcherOptions are the defaults of "eventflow dispatcher" but for what a demo on one machine needs.
func (s *session) dispatcherOptions(started func(api, ops string)) dispatcher.Options {
	o := dispatcher.Options{Version: s.version, Started: started}
	o.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	o.Routes, o.Store = s.manifests(), "pebble:"+filepath.Join(s.dir, "store")
	o.Listen, o.OpsListen, o.IngestAuth = s.listen, "127.0.0.1:0", "none"
	o.EgressAllowHTTP, o.EgressAllowCIDRs = true, []string{"127.0.0.0/8"}
	o.DrainDelay = 0 // nobody else publishes
	return o
}

// demonstrate publishes the sample events, and returns once all have arrived.
func (s *session) demonstrate(ctx context.Context, api string) error {
	s.say("• an event of each automation in the Event Flow guide, published to http://%s", api)
	p := publisher{to: "http://" + api, namespace: s.samples.Namespace, patience: startTimeout, out: lines(func(line string) { s.say("  %s", line) })}
	c, err := p.client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	began := time.Now()
	for _, event := range s.samples.Events {
		if err := p.publish(ctx, c, string(event)); err != nil {
			return fmt.Errorf("publish a sample event: %w", err)
		}
	}
	if err := s.awaitArrival(ctx, len(s.samples.Events)); err != nil || ctx.Err() != nil {
		return err
	}
	s.say("• %d events arrived and are verified, after %.1f s", len(s.samples.Events), time.Since(began).Seconds())
	return nil
}

// awaitArrival returns once the endpoint has taken that many deliveries, or ctx has ended.
func (s *session) awaitArrival(ctx context.Context, wanted int) error {
	patience := arrival * time.Duration(1+s.failFirst)
	late := time.NewTimer(patience)
	defer late.Stop()
	for taken := 0; taken < wanted; {
		select {
		case a := <-s.arrived:
			if a.Status == http.StatusOK && !a.Duplicate {
				taken++
			}
		case err := <-s.ended:
			return err
		case <-late.C:
			return fmt.Errorf("%d of %d events arrived within %s", taken, wanted, patience)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// instructions say how to go on.
func (s *session) instructions(api string) string {
	namespace := "http://" + api + "/v1/namespaces/" + s.samples.Namespace
	return `Everything runs. In another terminal, publish another event:

  curl -i ` + namespace + `/events -H "Content-Type: application/json" \
    -d '{"type":"patient.created","data":{"resourceType":"patient","resourceId":"pt_1","action":"created"}}'

and look at what became of it:

  curl ` + namespace + `/deliveries

The subscriptions are in ` + s.manifests() + `: what you change there is in force within seconds.
The dispatcher's log is ` + filepath.Join(s.dir, "dispatcher.log") + `.
Ctrl-C stops all of it and cleans up.`
}

// say shows a line.
func (s *session) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// lines is a writer that hands on what is written line by line. Each write ends a line.
type lines func(line string)

func (f lines) Write(p []byte) (int, error) {
	f(string(p[:max(0, len(p)-1)]))
	return len(p), nil
}
