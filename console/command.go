package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/console/web"
)

// The ways to know users.
const (
	authLaunch = "launch"
	authBearer = "bearer"
)

// options are those of "eventflow console".
type options struct {
	listen, auth        string
	hosts, resources    []string
	open                bool
	kubeconfig, context string
	namespace           string
	folder, dispatcher  string
	dispatcherCA        string
	out                 io.Writer
	browse              func(ctx context.Context, address string) error
	logger              logr.Logger
}

// Command returns "eventflow console".
func Command() *cobra.Command {
	o := options{browse: browse}
	command := &cobra.Command{
		Use:   "console",
		Short: "Open the Webhooks panel: subscriptions, deliveries, replay",
		Long: "Console serves the Webhooks panel. It acts with your kubeconfig and your rights, and only this machine reaches it.\n" +
			"With --auth=bearer it runs in a cluster behind the platform's login, and acts with the token of each request.",
		Example: "  # with your kubeconfig, and deliveries through a port-forward\n" +
			"  kubectl -n eventflow-system port-forward svc/eventflow-dispatcher-default 8443:443 &\n" +
			"  kubectl -n eventflow-system get configmap eventflow-ca-default -o 'jsonpath={.data.ca\\.crt}' >ca.crt\n" +
			"  eventflow console --dispatcher=https://localhost:8443 --dispatcher-ca-file=ca.crt\n\n" +
			"  # without a cluster, on the folder that a dispatcher reads\n" +
			"  eventflow console --folder=manifests --dispatcher=http://127.0.0.1:8080",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			o.out = command.OutOrStdout()
			o.logger = zap.New(zap.UseDevMode(false), zap.WriteTo(command.ErrOrStderr()))
			ctrl.SetLogger(o.logger)
			return run(command.Context(), &o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the panel; port 0 takes a free one; with --auth=launch it must be loopback")
	flags.StringVar(&o.auth, "auth", authLaunch, "launch: who opens the printed address; bearer: the token of each request, passed on to the API server")
	flags.StringSliceVar(&o.hosts, "host", nil, "host names that the panel answers to, with --auth=bearer")
	flags.StringSliceVar(&o.resources, "resource", nil, "further resources that events may be of, as spec.resources of the WebhookDispatcher")
	flags.BoolVar(&o.open, "open", true, "open the browser")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG, ~/.kube/config, or the pod's service account for its address only")
	flags.StringVar(&o.context, "context", "", "context of the kubeconfig")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "namespace that pages show first")
	flags.StringVar(&o.folder, "folder", "", "folder of manifests, in place of a cluster")
	flags.StringVar(&o.dispatcher, "dispatcher", "", "URL of a dispatcher's API, for deliveries; it gets the user's token")
	flags.StringVar(&o.dispatcherCA, "dispatcher-ca-file", "", "certificates, in PEM, that the dispatcher's own may be signed by; without, those of the system")
	return command
}

// check refuses what would let in somebody else.
func (o *options) check() error {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	switch {
	case o.auth != authLaunch && o.auth != authBearer:
		return fmt.Errorf("--auth=%q: want launch or bearer", o.auth)
	case o.auth == authLaunch && !loopback(host):
		return errors.New("--listen must be a loopback address such as 127.0.0.1:0: others on the network must not reach your rights; use --auth=bearer in a cluster")
	case o.auth == authBearer && len(o.hosts) == 0:
		return errors.New("--auth=bearer needs --host, the names under which browsers reach the panel")
	case o.auth == authBearer && o.folder != "":
		return errors.New("--folder is for this machine: it cannot be used with --auth=bearer")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// run serves until ctx ends.
func run(ctx context.Context, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	catalog, err := event.NewCatalog(o.resources...)
	if err != nil {
		return fmt.Errorf("--resource: %w", err)
	}
	backends, err := newBackends(o)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	settings := web.Options{
		Open: backends.open, Where: backends.where, Catalog: catalog, Namespace: backends.namespace, Now: time.Now, Logger: o.logger,
		Hosts: o.hosts, Auth: web.Bearer{},
	}
	link := ""
	if o.auth == authLaunch {
		launch := web.NewLaunch(port)
		settings.Auth = launch
		settings.Hosts = []string{"127.0.0.1:" + port, "localhost:" + port, "[::1]:" + port}
		link = "http://" + address + launch.Path()
	}
	server, err := web.New(settings)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	o.announce(ctx, address, link)
	return serve(ctx, listener, server.Handler())
}

// announce says where the panel is, and opens it.
func (o *options) announce(ctx context.Context, address, link string) {
	if link == "" {
		fmt.Fprintf(o.out, "The Webhooks panel listens on %s\n", address)
		return
	}
	fmt.Fprintf(o.out, "The Webhooks panel, with your rights, until Ctrl-C:\n\n  %s\n\nKeep the address to yourself.\n", link)
	if o.open {
		if err := o.browse(ctx, link); err != nil {
			fmt.Fprintln(o.out, "No browser could be opened: open the address yourself.")
		}
	}
}

// browse opens the address with the system's browser.
func browse(ctx context.Context, address string) error {
	if _, err := url.Parse(address); err != nil {
		return err
	}
	program, arguments := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		program = "open"
	case "windows":
		program, arguments = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	command := exec.CommandContext(context.WithoutCancel(ctx), program, arguments...)
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }() // it ends when the browser has the address
	return nil
}

// serve serves until ctx ends, and then lets requests finish for some seconds.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}
