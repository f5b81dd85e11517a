package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// described is a command as "eventflow describe-commands" prints it.
type described struct {
	Use, Short, Long, Example string
	Runnable                  bool
	Flags                     []describedFlag
	Commands                  []described
}

type describedFlag struct{ Name, Shorthand, Usage, Default, NoOptionDefault, Type string }

// writeMan writes the man pages and the completions, which the binary of this machine prints.
func (r *release) writeMan(ctx context.Context, binaries map[platform][]byte) error {
	here := platform{runtime.GOOS, runtime.GOARCH}
	binary, ok := binaries[here]
	if !ok {
		return fmt.Errorf("-platforms leaves out %s: man pages are made by the binary of this machine", here)
	}
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	program := filepath.Join(folder, product)
	if err := os.WriteFile(program, binary, 0o700); err != nil { //nolint:gosec // it is run
		return err
	}
	files := []file{}
	for name, shell := range map[string]string{product + ".bash": "bash", "_" + product: "zsh", product + ".fish": "fish", "kubectl_complete-" + product: "kubectl"} {
		text, err := r.command(ctx, nil, program, "completion", shell)
		if err != nil {
			return err
		}
		files = append(files, file{"completion/" + name, 0o755, []byte(text + "\n")})
	}
	text, err := r.command(ctx, nil, program, "describe-commands")
	if err != nil {
		return err
	}
	pages, err := r.manPages(text)
	if err != nil {
		return err
	}
	files = append(files, pages...)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var archive bytes.Buffer
	if err := writeTarGz(&archive, r.time, files); err != nil {
		return err
	}
	return r.write(r.name("man.tar.gz"), archive.Bytes())
}

// manPages are those of all commands.
func (r *release) manPages(text string) ([]file, error) {
	var root described
	if err := json.Unmarshal([]byte(text), &root); err != nil {
		return nil, fmt.Errorf("read describe-commands: %w", err)
	}
	files := []file{}
	var visit func(c *cobra.Command) error
	visit = func(c *cobra.Command) error {
		var page bytes.Buffer
		header := &doc.GenManHeader{Section: "1", Date: &r.time, Source: "Event Flow " + r.version, Manual: "Event Flow"}
		if err := doc.GenMan(c, header, &page); err != nil {
			return err
		}
		files = append(files, file{"man/" + strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1", 0o644, page.Bytes()})
		for _, below := range c.Commands() {
			if err := visit(below); err != nil {
				return err
			}
		}
		return nil
	}
	return files, visit(root.command())
}

// command is the command again, to be read and not run.
func (d described) command() *cobra.Command {
	c := &cobra.Command{Use: d.Use, Short: d.Short, Long: d.Long, Example: d.Example, DisableAutoGenTag: true}
	c.CompletionOptions.DisableDefaultCmd = true
	if d.Runnable {
		c.Run = func(*cobra.Command, []string) {}
	}
	for _, f := range d.Flags {
		if f.Name == "help" {
			continue // of each command, by cobra itself
		}
		c.Flags().AddFlag(&pflag.Flag{
			Name: f.Name, Shorthand: f.Shorthand, Usage: f.Usage, DefValue: f.Default, NoOptDefVal: f.NoOptionDefault,
			Value: documented{f.Default, f.Type},
		})
	}
	for _, below := range d.Commands {
		c.AddCommand(below.command())
	}
	return c
}

// documented is a flag's value that cannot be set.
type documented struct{ value, kind string }

func (d documented) String() string   { return d.value }
func (d documented) Set(string) error { return nil }
func (d documented) Type() string     { return d.kind }
