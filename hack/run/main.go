package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options are what run is told.
type options struct {
	// cluster is "" for a control plane on this machine, or "current" for the one that KUBECONFIG names.
	cluster string
	// once ends after the sample events arrived.
	once bool
	// failFirst makes the receiver refuse the first attempts of each delivery.
	failFirst int
	// then is a program that runs once everything does; the run ends with it.
	then string
	// out gets what is shown; progress of builds goes to progress.
	out, progress io.Writer
	// running, if set, is called once everything is shown, before the wait for the end of the context.
	running func(*session)
}

func main() {
	o := options{out: os.Stdout, progress: os.Stderr}
	flag.StringVar(&o.cluster, "cluster", "", `"current" uses the cluster that KUBECONFIG names; else a control plane is started`)
	flag.BoolVar(&o.once, "once", false, "end after the sample events arrived, instead of at Ctrl-C")
	flag.IntVar(&o.failFirst, "fail-first", 0, "let the receiver refuse the first N attempts of each delivery, to see retries")
	flag.StringVar(&o.then, "then", "", "program to run once everything does, and to end with; KUBECONFIG, EVENTFLOW and DISPATCHER say where things are")
	flag.Parse()

	ctrl.SetLogger(logr.Discard()) // envtest's
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "run: %v\n", err)
		os.Exit(1)
	}
}
