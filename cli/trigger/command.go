package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/event/sample"
	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
)

const long = `Publish a sample event into a running system, and follow the deliveries that it causes until they end.

With the name of a subscription, only its deliveries are followed. There is a sample of each of the 42 types, with data about
nobody; --data and --previous replace it. The samples of a resource share their ids: an updated appointment is the one that was
created before.

The event reaches every subscription of the namespace that it matches, and is delivered to their real endpoints.

The dispatcher is found by --server, or in the cluster of the kubeconfig. The request carries --token-file, --token, a token of
--service-account, or what the kubeconfig has for its user.

Exit codes: 0 if no delivery failed; 1 if one failed, did not end within --timeout, or the subscription named got none; 2 if a
flag or a file is wrong. A delivery that is planned for later than --timeout is not waited for, nor one that waits until its consumer pulls. Which
subscriptions are pulled, the cluster of the kubeconfig says.`

const example = `  # what does the subscription do with a new appointment?
  eventflow trigger sms-reminder -n clinic-a --type appointment.created

  # all subscriptions of the namespace, through a forwarded port
  kubectl -n eventflow-system port-forward service/eventflow-dispatcher-default 8443:443
  eventflow trigger -n clinic-a --type encounter.updated --server https://localhost:8443

  # with data of one's own, as a ServiceAccount that may publish
  eventflow trigger billing -n clinic-a --type encounter.updated --data encounter.json --previous before.json --service-account ehr

  # only show the event
  eventflow trigger --type observation.created --dry-run`

// options are the command's flags.
type options struct {
	subscription, namespace, eventType, id string
	data, previous                         string
	dryRun, follow, listTypes              bool
	timeout                                time.Duration
	target                                 target

	now func() time.Time
}

// Command returns the command. version is the product's.
func Command(version string) *cobra.Command {
	o := options{now: time.Now}
	o.target.version = version
	command := &cobra.Command{
		Use:     "trigger [NAME]",
		Short:   "Publish a sample event, and follow its deliveries",
		Long:    long,
		Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.Bad("unexpected argument %q: name one subscription, or none", args[1])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.subscription = args[0]
			}
			return o.run(command.Context(), command.OutOrStdout())
		},
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.Bad("%w", err) })
	o.addFlags(command)
	return command
}

func (o *options) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&o.namespace, "namespace", "n", "", "namespace to publish in; that of the kubeconfig's context unless set")
	flags.StringVar(&o.eventType, "type", "", "type of the event, such as appointment.created; see --list-types")
	flags.StringVar(&o.id, "id", "", "id of the event; made unless set")
	flags.StringVar(&o.data, "data", "", "file with the event's data, a JSON object, in place of the sample's")
	flags.StringVar(&o.previous, "previous", "", "file with the data before an update, in place of the sample's")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print the event, and publish nothing")
	flags.BoolVar(&o.follow, "follow", true, "follow the deliveries until they end")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to follow")
	flags.BoolVar(&o.listTypes, "list-types", false, "list the event types that have a sample, and do nothing else")
	o.target.addFlags(flags)
	_ = command.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(types(), cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"namespace", "id", "timeout", "server", "token", "service-account", "dispatcher", "context"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	_ = command.MarkFlagFilename("data", "json")
	_ = command.MarkFlagFilename("previous", "json")
}

// types are those that have a sample.
func types() (all []string) {
	for _, resource := range event.Resources {
		for _, action := range event.Actions {
			all = append(all, resource+"."+string(action))
		}
	}
	return all
}

func (o *options) run(ctx context.Context, out io.Writer) error {
	if o.listTypes {
		_, err := fmt.Fprintln(out, strings.Join(types(), "\n"))
		return err
	}
	e, err := o.event()
	if err != nil {
		return err
	}
	if o.dryRun {
		text, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			return fmt.Errorf("print the event: %w", err)
		}
		_, err = fmt.Fprintln(out, string(text))
		return err
	}
	api, err := o.target.connect(ctx, o.namespace, o.subscription)
	if err != nil {
		return err
	}
	deliveries, err := api.publish(ctx, e)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Published %s (%s) in namespace %s: %s.\n", e.Type, e.ID, api.namespace, counted(deliveries))
	if !o.follow {
		return nil
	}
	f := follower{api: api, out: out, event: e.ID, subscription: o.subscription, now: o.now, timeout: o.timeout}
	return f.run(ctx, deliveries)
}

func counted(deliveries int) string {
	switch deliveries {
	case 0:
		return "no subscription matches it"
	case 1:
		return "1 delivery"
	}
	return fmt.Sprintf("%d deliveries", deliveries)
}

// event is the sample, with what the flags replace.
func (o *options) event() (sample.Event, error) {
	if o.eventType == "" {
		return sample.Event{}, exit.Bad("--type is missing: name the event's type, such as appointment.created; --list-types lists them")
	}
	now := o.now()
	e, err := sample.New(event.Type(o.eventType), now)
	if err != nil && (o.data == "" || !errors.Is(err, sample.ErrNone)) {
		return e, exit.Bad("--type=%q: %w", o.eventType, err)
	}
	e.ID = o.id
	if e.ID == "" {
		e.ID = event.NewID(now)
	} else if err := event.CheckID(e.ID); err != nil {
		return e, exit.Bad("--id=%q: %w", o.id, err)
	}
	if o.data != "" {
		e.Previous = nil // that of the sample is about another resource
		if e.Data, err = object("--data", o.data); err != nil {
			return e, err
		}
	}
	if o.previous != "" {
		if e.Previous, err = object("--previous", o.previous); err != nil {
			return e, err
		}
	}
	return e, nil
}

// object reads a file that holds a JSON object.
func object(flag, name string) (json.RawMessage, error) {
	text, err := folder.ReadFile(name)
	if err != nil {
		return nil, exit.Bad("%s: %w", flag, err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return nil, exit.Bad("%s=%s: the file holds no JSON object", flag, name)
	}
	return text, nil
}
