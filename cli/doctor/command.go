package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/clinikapi/eventflow/cli/exit"
)

const long = `Look at an installation, with the rights of your kubeconfig, and say what is wrong, why, and which command mends it.

It looks at resource definitions, the manager, the cluster's APIs, dispatchers, their pods, versions and volumes, Pod Security
labels, certificates, subscriptions, the Secrets that they name, and their endpoints' names and addresses. It changes nothing.
What you may not read, it says and leaves out.

A finding is Failed if someone has to change something, Waiting if it may mend itself, a Warning if it works all the same, and
else a Note. Flux and Argo CD say the same of an object.

Exit codes: 0 if nothing is Failed or Waiting; 1 if something is, or the cluster could not be asked; 2 if a flag is wrong.`

const example = `  # everything
  eventflow doctor

  # the subscriptions of one namespace, and what they depend on
  eventflow doctor -n clinic-a

  # for a program
  eventflow doctor -o json`

// options are the command's flags.
type options struct {
	namespace, output   string
	kubeconfig, context string
	timeout             time.Duration
	version             string
}

// Command returns the command. version is the product's.
func Command(version string) *cobra.Command {
	o := options{version: version}
	command := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with an installation, and which command mends it", Long: long, Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit.Bad("unexpected argument %q: doctor takes flags alone", args[0])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(command *cobra.Command, _ []string) error { return o.run(command.Context(), command.OutOrStdout()) },
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.Bad("%w", err) })
	flags := command.Flags()
	flags.StringVarP(&o.namespace, "namespace", "n", "", "look at the subscriptions of this namespace alone; of all unless set")
	flags.StringVarP(&o.output, "output", "o", "text", "text or json")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG or the usual place")
	flags.StringVar(&o.context, "context", "", "context of the kubeconfig")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to look")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"namespace", "context", "timeout"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return command
}

func (o *options) run(ctx context.Context, out io.Writer) error {
	if o.output != "text" && o.output != "json" {
		return exit.Bad("--output=%q: want text or json", o.output)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context}).ClientConfig()
	if err != nil {
		return exit.Bad("there is no cluster (%w): name a kubeconfig with --kubeconfig", err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	findings, err := diagnose(ctx, cluster, o.namespace, o.version)
	if err != nil {
		return err
	}
	return report(out, o.output, findings)
}

// diagnose looks at a cluster's installation, and returns what is wrong.
func diagnose(ctx context.Context, cluster *rest.Config, namespace, version string) ([]Finding, error) {
	cluster = rest.CopyConfig(cluster)
	cluster.QPS, cluster.Burst = 50, 100
	kube, err := newClient(cluster)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	l := &looker{client: kube, now: time.Now, version: version, namespace: namespace, resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	in, err := l.look(ctx)
	if err != nil {
		return nil, err
	}
	return examine(in, checks()), nil
}

// errBroken ends the command with exit.Failure.
var errBroken = errors.New("something is wrong, as said above")

// report writes the findings, and returns an error if something does not work.
func report(out io.Writer, output string, findings []Finding) error {
	if err := write(out, output, findings); err != nil {
		return fmt.Errorf("write the findings: %w", err)
	}
	if broken(findings) {
		return errBroken
	}
	return nil
}

func write(out io.Writer, output string, findings []Finding) error {
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"healthy": !broken(findings), "findings": findings})
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(out, "Nothing is wrong.")
		return err
	}
	for _, f := range findings {
		of := ""
		if f.Object != "" {
			of = f.Object + ": "
		}
		text := fmt.Sprintf("%s  %s%s\n", f.Level, of, f.Problem)
		if f.Why != "" {
			text += "  why:  " + f.Why + "\n"
		}
		if _, err := fmt.Fprintf(out, "%s  mend: %s\n\n", text, f.Mend); err != nil {
			return err
		}
	}
	return nil
}
