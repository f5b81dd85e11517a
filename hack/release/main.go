package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

const (
	product   = "eventflow"
	home      = "https://github.com/clinikapi/eventflow"
	license   = "Apache-2.0"
	summary   = "Signed webhooks for clinical events, declared in Kubernetes"
	checksums = "checksums.txt"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "the version, as 1.2.3")
	source := flags.String("source", "../..", "the checkout")
	output := flags.String("output", "", "a folder for the files, which is emptied first")
	image := flags.String("image", "ghcr.io/clinikapi/eventflow", "the repository of the image")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64", "os/architecture of the binaries; the image gets those of linux")
	key := flags.String("key", "", "PEM file with the private ECDSA key to sign with; EVENTFLOW_KEY_PASSWORD decrypts one of cosign; without, nothing is signed")
	push := flags.String("push", "", "push the image of this folder, which an earlier call made, and do nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *push != "" {
		return pushImage(ctx, *push, *image)
	}
	if *output == "" {
		return errors.New("-output is not set")
	}
	r, err := newRelease(ctx, *source, *version, *image, *output)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(*platforms, ",") {
		system, architecture, ok := strings.Cut(name, "/")
		if !ok {
			return fmt.Errorf("-platforms: %q is no os/architecture", name)
		}
		r.platforms = append(r.platforms, platform{system, architecture})
	}
	if err := r.make(ctx); err != nil {
		return err
	}
	if *key != "" {
		return sign(filepath.Join(r.output, checksums), *key)
	}
	return nil
}
