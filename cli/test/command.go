package test

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

const long = `Say what subscriptions would do with events: whether each matches and why not, when its delivery is due and why, what a
later event replaces or cancels, and the request that the endpoint would get.

Nothing is sent, and no cluster is needed. Events are published one after the other, each at its own timestamp; endpoints
always answer with success. Values of Secrets are never shown, and a Secret that is missing gets a placeholder.

An event is what a producer posts: {"type":"appointment.created","data":{…}}, an array of such, or a CloudEvent.

Exit codes: 0 if everything was evaluated and every --expect is met; 1 if an --expect is not met, or a subscription is not
accepted and no --expect says so; 2 if a file or a flag is wrong.`

const example = `  # does it match, and what would the endpoint get?
  eventflow test -f reminder.yaml -f secrets.yaml --event booked.json

  # a sequence: the appointment is booked, moved, and cancelled
  eventflow test -f reminder.yaml --event booked.json --event moved.json --event cancelled.json

  # in a pipeline: the last event is skipped because its time has passed, the first was planned
  eventflow test -f reminder.yaml --event first.json --event second.json --now 2026-03-02T09:00:00Z \
    --expect reminder=Past --expect 1:reminder=Scheduled

  # a claim that is made of a lookup's answer, as JSON
  eventflow test -f claim.yaml --event finished.json --lookup encounter.json -o json

  # from standard input
  kubectl get whsub reminder -n clinic-a -o yaml | eventflow test -f - --event booked.json`

// options are the command's flags.
type options struct {
	files, events, expect []string
	namespace             string
	now, lookup, output   string
	allowHTTP, listTypes  bool
	resources             []string
	version               string
}

// Command returns the command. version is the product's.
func Command(version string) *cobra.Command {
	o := options{version: version}
	command := &cobra.Command{
		Use:     "test",
		Short:   "Try subscriptions on events before they run",
		Long:    long,
		Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit.Bad("unexpected argument %q: name files with -f and --event", args[0])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(command *cobra.Command, _ []string) error { return o.run(command) },
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.Bad("%w", err) })
	o.addFlags(command)
	return command
}

func (o *options) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "file or folder with WebhookSubscriptions and their Secrets, or - for standard input; repeat it for more")
	flags.StringArrayVarP(&o.events, "event", "e", nil, "file with an event, or with an array of events, or - for standard input; repeat it for a sequence")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "namespace in which the events are published; that of the subscriptions if they have one alone")
	flags.StringVar(&o.now, "now", "", "time before the first event, such as 2026-03-02T09:00:00Z; without, the first event's timestamp, or the present")
	flags.StringVar(&o.lookup, "lookup", "", "file with the JSON that a lookup is answered with")
	flags.StringVarP(&o.output, "output", "o", "text", "text or json")
	flags.StringArrayVar(&o.expect, "expect", nil, "[NUMBER:]SUBSCRIPTION=WORD, where WORD is an outcome ("+outcomeNames()+") or a reason such as Past; NUMBER is that of the event, without it the last. Or match, or none")
	flags.BoolVar(&o.allowHTTP, "allow-http", false, "accept http URLs, as a dispatcher with spec.egress.allowHTTP does")
	flags.StringArrayVar(&o.resources, "event-resource", nil, "resource that the dispatcher knows beside the clinical ones")
	flags.BoolVar(&o.listTypes, "list-types", false, "list the event types, and do nothing else")
	for flag, values := range map[string][]string{"output": {"text", "json"}, "namespace": nil, "now": nil, "expect": {"match", "none"}, "event-resource": nil} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = command.MarkFlagFilename("filename", "yaml", "yml", "json")
	_ = command.MarkFlagFilename("event", "json")
	_ = command.MarkFlagFilename("lookup", "json")
}

func outcomeNames() string {
	names := make([]string, 0, len(simulate.Outcomes()))
	for _, outcome := range simulate.Outcomes() {
		names = append(names, string(outcome))
	}
	return strings.Join(names, ", ")
}

func (o *options) run(command *cobra.Command) error {
	catalog, err := event.NewCatalog(o.resources...)
	if err != nil {
		return exit.Bad("--event-resource: %w", err)
	}
	out := command.OutOrStdout()
	if o.listTypes {
		return listTypes(out, catalog)
	}
	expectations, err := parseExpectations(o.expect)
	if err != nil {
		return err
	}
	if o.output != "text" && o.output != "json" {
		return exit.Bad("--output=%q: want text or json", o.output)
	}
	in := input{stdin: command.InOrStdin()}
	report, err := o.report(command, &in, catalog)
	if err != nil {
		return err
	}
	result := evaluate(report, expectations)
	if o.output == "json" {
		err = writeJSON(out, result)
	} else {
		err = writeText(out, result)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return result.verdict()
}

// report reads the input, and tries it.
func (o *options) report(command *cobra.Command, in *input, catalog *event.Catalog) (*simulate.Report, error) {
	subscriptions, warnings, err := in.subscriptions(o.files)
	if err != nil {
		return nil, err
	}
	namespace, err := o.namespaceOf(subscriptions)
	if err != nil {
		return nil, err
	}
	events, err := in.events(o.events, catalog)
	if err != nil {
		return nil, err
	}
	run := simulate.Options{Policy: routing.Policy{Catalog: catalog, AllowHTTP: o.allowHTTP}, Version: o.version}
	if o.now != "" {
		if run.Start, err = time.Parse(time.RFC3339, o.now); err != nil {
			return nil, exit.Bad("--now=%q: want a time such as 2026-03-02T09:00:00Z", o.now)
		}
	}
	if o.lookup != "" {
		if run.Lookup, err = in.json("--lookup", o.lookup); err != nil {
			return nil, err
		}
	}
	report, err := simulate.Run(command.Context(), subscriptions, namespace, events, run)
	if err != nil {
		return nil, exit.Bad("%w", err)
	}
	report.Warnings = append(warnings, report.Warnings...)
	return report, nil
}

// namespaceOf is where the events are published.
func (o *options) namespaceOf(subscriptions []simulate.Subscription) (string, error) {
	var all []string
	for _, s := range subscriptions {
		all = append(all, s.Object.Namespace)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	switch {
	case o.namespace != "" && !slices.Contains(all, o.namespace):
		return "", exit.Bad("--namespace=%s: the files have subscriptions in %s only", o.namespace, strings.Join(all, ", "))
	case o.namespace != "":
		return o.namespace, nil
	case len(all) > 1:
		return "", exit.Bad("the files have subscriptions in %s: choose one with --namespace", strings.Join(all, ", "))
	}
	return all[0], nil
}

func listTypes(out io.Writer, catalog *event.Catalog) error {
	for _, resource := range catalog.Resources() {
		for _, action := range event.Actions {
			if _, err := fmt.Fprintf(out, "%s.%s\n", resource, action); err != nil {
				return err
			}
		}
	}
	for _, t := range event.OperationalTypes {
		if _, err := fmt.Fprintln(out, t); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(out io.Writer, result *result) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(result)
}
