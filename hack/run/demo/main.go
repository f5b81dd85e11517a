// Demo is "eventflow demo", in a program that links nothing else. Of the whole program it compiles what a delivery needs: no
// manager, and no group of Kubernetes beside the core. make run shows it while the rest is not built yet.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/clinikapi/eventflow/cli/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	command := demo.Command("dev")
	command.SilenceErrors, command.SilenceUsage = true, true
	err := command.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}
