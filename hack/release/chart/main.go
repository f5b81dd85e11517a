package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"helm.sh/helm/v3/pkg/strvals"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "chart: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, output io.Writer) error {
	if len(args) == 0 {
		return errors.New("want generate or template")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	root := flags.String("root", "../..", "the checkout")
	packed := flags.String("chart", "", "the chart to render, a folder or an archive; without, that of the checkout")
	namespace := flags.String("namespace", "eventflow-system", "namespace to render for")
	known := flags.Bool("known", false, "render for a cluster that has the resource definitions already")
	values := map[string]any{}
	flags.Func("set", "a value, as helm --set takes it", func(text string) error { return strvals.ParseInto(text, values) })
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	folder := filepath.Join(*root, "charts", "eventflow")
	if *packed == "" {
		*packed = folder
	}
	switch args[0] {
	case "generate":
		return generate(*root, folder)
	case "template":
		manifests, err := render(*packed, *namespace, *known, values)
		if err != nil {
			return err
		}
		_, err = io.WriteString(output, manifests)
		return err
	}
	return fmt.Errorf("no command %q: want generate or template", args[0])
}
