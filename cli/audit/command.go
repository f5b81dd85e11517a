// Package audit is "eventflow audit": it verifies what a dispatcher recorded of those who used it.
package audit

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/dispatcher/audit"
)

// Command returns "eventflow audit".
func Command() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Verify the audit trail of a dispatcher",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(&cobra.Command{
		Use:   "verify FILE",
		Short: "Say whether records were changed, taken out, put in or moved",
		Long: "Verify reads the audit trail in a file, or from standard input if FILE is -, such as the log of a pod. It exits with 1 at the first\n" +
			"record that is not as it was written. A trail whose end was cut off verifies: compare the last hash with one that you kept.",
		Example: "  kubectl -n eventflow-system logs deployment/eventflow-dispatcher-default | eventflow audit verify -",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			in := command.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return exit.Bad("%w", err)
				}
				defer func() { _ = file.Close() }() // it was read alone
				in = file
			}
			return verify(in, command.OutOrStdout())
		},
	})
	return command
}

func verify(in io.Reader, out io.Writer) error {
	s, err := audit.Verify(in)
	if err != nil {
		return err
	}
	if s.Records == 0 {
		return exit.Bad("there is no audit record")
	}
	end := "it ends with the stop of its process"
	if !s.Stopped {
		end = "its process runs, was killed, or the end is missing"
	}
	_, err = fmt.Fprintf(out, "%d records verified, %d to %d; %d more were lost; %s\nlast hash %s\n", s.Records, s.First, s.Last, s.Lost, end, s.Hash)
	return err
}
