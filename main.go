// Eventflow turns clinical events into signed webhooks. "eventflow dispatcher" is the data plane, "eventflow manager" the
// control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // the image has no other files

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	_ "golang.org/x/crypto/x509roots/fallback" // root certificates, where the system has none
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/clinikapi/eventflow/cli/audit"
	"github.com/clinikapi/eventflow/cli/demo"
	"github.com/clinikapi/eventflow/cli/doctor"
	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/cli/keys"
	"github.com/clinikapi/eventflow/cli/profile"
	"github.com/clinikapi/eventflow/cli/test"
	"github.com/clinikapi/eventflow/cli/trigger"
	"github.com/clinikapi/eventflow/console"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher"
)

// version is set by the linker; without, it is that of the module or of the commit.
var version string

func main() {
	os.Exit(run(os.Args[0], os.Args[1:]))
}

// run executes the command line of the program, and returns the process's exit code. An error is one line.
func run(program string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := rootCommand()
	namedFor(root, program)
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "eventflow: %v\n", err)
		return exit.Code(err)
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "eventflow",
		Short:         "Signed webhooks for clinical events, declared in Kubernetes",
		Long:          "Eventflow turns clinical events into signed webhooks. Any flag can also come from the environment:\n--store is EVENTFLOW_STORE, --ingest-auth is EVENTFLOW_INGEST_AUTH.",
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			return flagsFromEnvironment(command.Flags())
		},
	}
	root.SetVersionTemplate("eventflow {{.Version}}\n")
	root.AddCommand(dispatcherCommand(), managerCommand(), demo.Command(buildVersion()), describeCommand())
	root.AddCommand(test.Command(buildVersion()), trigger.Command(buildVersion()), doctor.Command(buildVersion()), keys.Command(), console.Command(), audit.Command())
	addCompletion(root)
	refuseUnknown(root)
	return root
}

func dispatcherCommand() *cobra.Command {
	options := dispatcher.Options{Version: buildVersion()}
	logging, profiles := logOptions{}, profile.Options{}
	command := &cobra.Command{
		Use:   "dispatcher",
		Short: "Accept events, keep them, and deliver them",
		Example: "  # without a cluster, on the manifests that kubectl apply takes\n" +
			"  eventflow dispatcher --routes=manifests --store=pebble:data --listen=127.0.0.1:8080 --ingest-auth=none",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			logger, err := logging.logger()
			if err != nil {
				return err
			}
			options.Logger = logger
			stop, err := profiles.Start(command.Context(), logger)
			if err != nil {
				return err
			}
			defer stop()
			return dispatcher.Run(command.Context(), options)
		},
	}
	options.AddFlags(command.Flags())
	logging.addFlags(command.Flags())
	profiles.AddFlags(command.Flags())
	return command
}

func managerCommand() *cobra.Command {
	options := controllers.Options{Version: buildVersion()}
	logging, profiles := logOptions{}, profile.Options{}
	kubeconfig := ""
	command := &cobra.Command{
		Use:   "manager",
		Short: "Reconcile WebhookSubscriptions and WebhookDispatchers",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			logger, err := logging.logger()
			if err != nil {
				return err
			}
			options.Logger = logger
			if kubeconfig != "" {
				if err := os.Setenv("KUBECONFIG", kubeconfig); err != nil {
					return fmt.Errorf("use --kubeconfig: %w", err)
				}
			}
			cluster, err := config.GetConfig()
			if err != nil {
				return fmt.Errorf("find the cluster: %w", err)
			}
			stop, err := profiles.Start(command.Context(), logger)
			if err != nil {
				return err
			}
			defer stop()
			return controllers.Run(command.Context(), cluster, options)
		},
	}
	options.AddFlags(command.Flags())
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG or the pod's service account")
	logging.addFlags(command.Flags())
	profiles.AddFlags(command.Flags())
	return command
}

// logOptions say what is logged, and how.
type logOptions struct {
	level  int
	format string
}

func (o *logOptions) addFlags(flags *pflag.FlagSet) {
	flags.IntVar(&o.level, "v", 0, "log level; higher logs more")
	flags.StringVar(&o.format, "log-format", "json", "json or console")
}

// logger returns the logger, and makes it that of the libraries.
func (o *logOptions) logger() (logr.Logger, error) {
	if o.format != "json" && o.format != "console" {
		return logr.Logger{}, fmt.Errorf("--log-format=%q: want json or console", o.format)
	}
	logger := zap.New(zap.UseDevMode(false), zap.Level(zapcore.Level(-o.level)), zap.StacktraceLevel(zapcore.PanicLevel), func(z *zap.Options) {
		z.TimeEncoder = zapcore.RFC3339TimeEncoder
		if o.format == "console" {
			zap.ConsoleEncoder()(z)
		}
	})
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	return logger, nil
}

// flagsFromEnvironment sets the flags that the command line left out from EVENTFLOW_… variables.
func flagsFromEnvironment(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "EVENTFLOW_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if !ok || f.Changed || failed != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
		}
	})
	return failed
}

// buildVersion is the linker's word, else the module's version, else the commit.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return setting.Value[:12]
		}
	}
	return "devel"
}
