package keys

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/cli/exit"
)

const rotateLong = `Rotate the signing key of a subscription so that no receiver refuses a delivery. Each run makes one step, or says why it waits:

  1. A new key is made, in a Secret of its own, and signs beside the current one.
  2. You give the receivers the new key, and say so with --receivers-have.
  3. The new key becomes the current one. The old one signs beside it.
  4. The old key ends, by the same command.

The steps stand in spec.signing of the subscription. So a run that was interrupted is repeated, and anyone can go on. The last step
can be taken back with --undo until the old key has ended.

With --scheme=v1a the new key is an ed25519 pair: receivers get its public half, and nobody but the dispatcher can sign. A
receiver moves from one scheme to the other in the same steps. Receivers that verify X-Clinik-Signature cannot: a pair does not
make it.

What Argo CD, Flux or another controller owns is not changed, unless you say --force. With -o yaml the manifests of the next step are
printed, and nothing is changed. What is said beside them goes to standard error.

It needs the rights to get and patch webhooksubscriptions, and to create secrets. To get secrets is needed where a policy asks for
it, and to use a Secret that an earlier run left. It never changes or deletes a Secret.

Exit codes: 0 if a step was made, or waits for the reason that is printed; 1 if not, or if -o yaml has no manifest to print; 2 if a
flag is wrong.`

const rotateExample = `  # the first step, and later what is next
  eventflow keys rotate billing -n clinic-a

  # the receivers have the new key: it becomes the current one, and with the next run the old one ends
  eventflow keys rotate billing -n clinic-a --receivers-have=key_mfrggzdf

  # from a shared key to a pair
  eventflow keys rotate billing -n clinic-a --scheme=v1a

  # for Git: seal the Secret, and commit it with spec.signing
  eventflow keys rotate billing -n clinic-a -o yaml`

const showLong = `Show which keys sign the deliveries of a subscription, since when, and in which Secrets they stand. It reads no Secret: ids come
from status.signing.`

// cluster is where the subscription is.
type cluster struct{ namespace, kubeconfig, context string }

// Command returns "eventflow keys".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "keys", Short: "Rotate the signing key of a subscription, and show which keys sign", Args: cobra.NoArgs}
	command.AddCommand(rotateCommand(), showCommand())
	return command
}

func rotateCommand() *cobra.Command {
	r, at := &rotation{}, &cluster{}
	var scheme, output string
	var labels []string
	command := &cobra.Command{
		Use: "rotate NAME", Short: "Make the next step of a rotation, or say why it waits", Long: rotateLong, Example: rotateExample,
		Args: oneName, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, args []string) (err error) {
			if r.labels, err = parseLabels(labels); err != nil {
				return exit.Bad("--secret-label: %w", err)
			}
			switch {
			case scheme != "" && scheme != string(v1alpha1.SchemeShared) && scheme != string(v1alpha1.SchemePair):
				return exit.Bad("--scheme=%q: want v1 or v1a", scheme)
			case output != "text" && output != "yaml":
				return exit.Bad("--output=%q: want text or yaml", output)
			case r.undo && r.confirmed != "":
				return exit.Bad("--undo and --receivers-have exclude each other")
			}
			r.name, r.out, r.scheme, r.manifests = args[0], command.OutOrStdout(), v1alpha1.SignatureScheme(scheme), output == "yaml"
			if r.notes = r.out; r.manifests {
				r.notes = command.ErrOrStderr()
			}
			if r.kube, r.namespace, err = at.connect(); err != nil {
				return err
			}
			return r.run(command.Context())
		},
	}
	at.addFlags(command)
	flags := command.Flags()
	flags.StringVar(&r.confirmed, "receivers-have", "", "id of the new key, which every receiver has")
	flags.StringVar(&scheme, "scheme", "", "scheme of a key that is made: v1 (shared) or v1a (ed25519 pair); that of the current key unless set, if status.signing says it")
	flags.StringArrayVar(&labels, "secret-label", nil, "label, key=value, of the Secret that is made; may be repeated")
	flags.BoolVar(&r.dryRun, "dry-run", false, "ask the API server whether it would take the step, and change nothing")
	flags.StringVarP(&output, "output", "o", "text", "text, or yaml for the manifests of the next step, without any change")
	flags.BoolVar(&r.force, "force", false, "change what Argo CD, Flux or another controller owns")
	flags.BoolVar(&r.undo, "undo", false, "take the last step back")
	flags.DurationVar(&r.timeout, "timeout", 30*time.Second, "how long to wait for the dispatcher after a step")
	_ = command.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions([]string{"v1", "v1a"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"receivers-have", "secret-label", "timeout"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return command
}

func showCommand() *cobra.Command {
	at, output := &cluster{}, ""
	command := &cobra.Command{
		Use: "show NAME", Short: "Show which keys sign, since when, and where they stand", Long: showLong,
		Example: "  eventflow keys show billing -n clinic-a",
		Args:    oneName, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return exit.Bad("--output=%q: want text or json", output)
			}
			kube, namespace, err := at.connect()
			if err != nil {
				return err
			}
			return show(command.Context(), kube, command.OutOrStdout(), namespace, args[0], output)
		},
	}
	at.addFlags(command)
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exit.Bad("want the name of one subscription, got %d arguments", len(args))
	}
	return nil
}

func (c *cluster) addFlags(command *cobra.Command) {
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.Bad("%w", err) })
	flags := command.Flags()
	flags.StringVarP(&c.namespace, "namespace", "n", "", "namespace of the subscription; that of the kubeconfig's context unless set")
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG or the usual place")
	flags.StringVar(&c.context, "context", "", "context of the kubeconfig")
	for _, flag := range []string{"namespace", "context"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

// connect returns a client with the rights of the kubeconfig's user, and the namespace.
func (c *cluster) connect() (client.Client, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", exit.Bad("there is no cluster (%w): name a kubeconfig with --kubeconfig", err)
	}
	namespace := c.namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
		if of, _, err := loader.Namespace(); err == nil {
			namespace = of
		}
	}
	scheme, mapper, err := kinds()
	if err != nil {
		return nil, "", err
	}
	kube, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	return kube, namespace, err
}

// kinds are all that is asked for, so that no discovery is needed.
func kinds() (*runtime.Scheme, meta.RESTMapper, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mapper.Add(v1alpha1.GroupVersion.WithKind("WebhookSubscription"), meta.RESTScopeNamespace)
	return scheme, mapper, err
}
