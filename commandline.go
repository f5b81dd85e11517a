package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clinikapi/eventflow/cli/exit"
)

// plugin is the file name by which kubectl finds the program as its plugin "kubectl eventflow".
const plugin = "kubectl-eventflow"

// namedFor lets the help and the examples name the command that was called: program is the path of the program.
func namedFor(root *cobra.Command, program string) {
	if strings.TrimSuffix(filepath.Base(program), ".exe") != plugin {
		return
	}
	const called = "kubectl eventflow"
	root.Use = plugin
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: called}
	visit(root, func(c *cobra.Command) { c.Example = strings.ReplaceAll(c.Example, "  eventflow ", "  "+called+" ") })
}

// refuseUnknown lets a command that only groups others refuse a word that is none of them. Cobra would print the help, and succeed.
func refuseUnknown(root *cobra.Command) {
	visit(root, func(group *cobra.Command) {
		if group == root || group.Runnable() || !group.HasSubCommands() {
			return
		}
		group.DisableFlagsInUseLine = true
		group.SuggestionsMinimumDistance = 2 // as cobra has it for the root
		group.Args, group.ValidArgsFunction = cobra.ArbitraryArgs, cobra.NoFileCompletions
		group.RunE = func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return group.Help()
			}
			hint := ""
			if near := group.SuggestionsFor(args[0]); len(near) > 0 {
				hint = ": did you mean " + strings.Join(near, " or ") + "?"
			}
			return exit.Bad("unknown command %q for %q%s", args[0], group.CommandPath(), hint)
		}
	})
}

func visit(command *cobra.Command, do func(*cobra.Command)) {
	do(command)
	for _, below := range command.Commands() {
		visit(below, do)
	}
}

// addCompletion adds to cobra's "completion" what kubectl needs to complete a plugin's arguments.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.Name() != "completion" {
			continue
		}
		command.AddCommand(&cobra.Command{
			Use:   "kubectl",
			Short: "Print the program by which kubectl completes its plugin",
			Long: "Kubectl completes \"kubectl eventflow\" by a program in your PATH, which it finds by its name. krew does not install it:\n\n" +
				"  kubectl eventflow completion kubectl >~/.local/bin/kubectl_complete-eventflow\n  chmod +x ~/.local/bin/kubectl_complete-eventflow",
			Args: cobra.NoArgs,
			RunE: func(command *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(command.OutOrStdout(), "#!/bin/sh\nexec "+plugin+" __complete \"$@\"")
				return err
			},
		})
	}
}

// described is a command as hack/release reads it, which makes man pages from it.
type described struct {
	Use, Short, Long, Example string
	Runnable                  bool
	Flags                     []describedFlag
	Commands                  []described
}

type describedFlag struct{ Name, Shorthand, Usage, Default, NoOptionDefault, Type string }

// describeCommand prints all commands. It is for programs, so the help does not show it.
func describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "describe-commands",
		Short:  "Print all commands and flags as JSON",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return json.NewEncoder(command.OutOrStdout()).Encode(describe(command.Root()))
		},
	}
}

func describe(command *cobra.Command) described {
	command.InitDefaultHelpFlag()
	d := described{
		Use: command.Use, Short: command.Short, Long: command.Long, Example: command.Example, Runnable: command.Runnable(),
		Flags: describeFlags(command.NonInheritedFlags()),
	}
	for _, below := range command.Commands() {
		if below.IsAvailableCommand() {
			d.Commands = append(d.Commands, describe(below))
		}
	}
	return d
}

func describeFlags(flags *pflag.FlagSet) []describedFlag {
	all := []describedFlag{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Deprecated == "" {
			all = append(all, describedFlag{f.Name, f.Shorthand, f.Usage, f.DefValue, f.NoOptDefVal, f.Value.Type()})
		}
	})
	return all
}
