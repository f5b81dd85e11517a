// First is the beginning of make run. It links the standard library alone, so it is there at once. It builds hack/run/demo, which
// is half of what the whole program takes, and shows the samples' events delivered by it. Then it builds hack/run, and becomes that.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/clinikapi/eventflow/hack/run/progress"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	program, arguments, err := first(ctx, "bin", os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	if err == nil && !interrupted {
		err = syscall.Exec(program, append([]string{program}, arguments...), os.Environ()) //nolint:gosec // what it has just built
	}
	if err != nil && !interrupted {
		fmt.Fprintf(os.Stderr, "run: %v\n", err)
		os.Exit(1)
	}
}

// module is where the programs are.
const module = "github.com/clinikapi/eventflow/hack/run"

// first shows the demo, and returns the program that goes on, with its arguments, which are those that it was given. It builds into
// dir.
func first(ctx context.Context, dir string, arguments []string, out, progressOut io.Writer) (program string, rest []string, err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(progressOut)
	failFirst := flags.Int("fail-first", 0, "let the receiver refuse the first N attempts of each delivery, to see retries")
	for name, usage := range map[string]string{
		"cluster": `"current" uses the cluster that KUBECONFIG names; else a control plane is started`,
		"then":    "program to run once everything does, and to end with",
	} {
		flags.String(name, "", usage)
	}
	flags.Bool("once", false, "end after the sample events arrived, instead of at Ctrl-C")
	if err := flags.Parse(arguments); err != nil {
		return "", nil, err
	}
	demo, program := filepath.Join(dir, "demo"), filepath.Join(dir, "run")
	screen := progress.Screen{Out: out}
	for _, step := range []struct {
		name    string
		command []string
	}{
		{"build the demo: a dispatcher and an endpoint (about 80 s the first time, with the libraries)", []string{"go", "build", "-o", demo, module + "/demo"}},
		{"without a cluster: eventflow demo", []string{demo, "--once", fmt.Sprint("--fail-first=", *failFirst)}},
		{"build the rest: the manager, and the tools of a control plane (about 100 s the first time)", []string{"go", "build", "-o", program, module}},
	} {
		err := screen.Step(ctx, step.name, func(ctx context.Context) error {
			command := exec.CommandContext(ctx, step.command[0], step.command[1:]...)
			command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
			command.Stdout, command.Stderr = out, progressOut
			return command.Run()
		})
		if err != nil {
			return "", nil, err
		}
	}
	screen.Say("  One program alone did that. Next is the same with Kubernetes, through kubectl.")
	return program, arguments, nil
}
