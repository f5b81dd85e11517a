package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

// maxStdin bounds what is read of standard input, in bytes.
const maxStdin = 32 << 20

// input reads files. Standard input can be read once.
type input struct {
	stdin io.Reader
	read  bool
}

// file returns the text of a file that a flag names.
func (in *input) file(flag, name string) ([]byte, error) {
	if name == "-" {
		if in.read {
			return nil, exit.Bad("%s=-: standard input can be read for one flag alone; put the other into a file", flag)
		}
		in.read = true
		text, err := io.ReadAll(io.LimitReader(in.stdin, maxStdin))
		if err != nil {
			return nil, exit.Bad("%s=-: %w", flag, err)
		}
		return text, nil
	}
	text, err := folder.ReadFile(name)
	if err != nil {
		return nil, exit.Bad("%s: %w", flag, err)
	}
	return text, nil
}

// reasonOf is an error without the path, which the message has already.
func reasonOf(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

// subscriptions reads manifests.
func (in *input) subscriptions(names []string) ([]simulate.Subscription, []string, error) {
	if len(names) == 0 {
		return nil, nil, exit.Bad("-f is missing: name the file with the WebhookSubscription")
	}
	set := folder.NewSet()
	var warnings []string
	for _, name := range names {
		files, err := filesOf(name)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			text, err := in.file("-f", file)
			if err != nil {
				return nil, nil, err
			}
			for _, problem := range set.Add(file, text) {
				if problem.Reason == folder.ReasonFileUnusable {
					return nil, nil, exit.Bad("%s: %s", file, problem.Message)
				}
				warnings = append(warnings, fmt.Sprintf("%s: %s/%s: %s", problem.Source, problem.Namespace, problem.Name, problem.Message))
			}
		}
	}
	var all []simulate.Subscription
	for _, sub := range set.Subscriptions() {
		all = append(all, simulate.Subscription{Object: sub, Sources: set.Sources(sub.Namespace), File: set.Source(sub)})
	}
	if len(all) == 0 {
		return nil, nil, exit.Bad("there is no WebhookSubscription in %v: name its file with -f", names)
	}
	return all, warnings, nil
}

// filesOf returns the file that a name is, or those of the folder that it is.
func filesOf(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, exit.Bad("-f=%s: %w", name, reasonOf(err))
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	names, err := folder.Names(name)
	if err != nil {
		return nil, exit.Bad("-f=%s: %w", name, reasonOf(err))
	}
	for i := range names {
		names[i] = filepath.Join(name, names[i])
	}
	return names, nil
}

// events reads a sequence of events.
func (in *input) events(names []string, catalog *event.Catalog) ([]simulate.Event, error) {
	if len(names) == 0 {
		return nil, exit.Bad("--event is missing: name a file with an event, such as {\"type\":\"patient.created\",\"data\":{}}")
	}
	var all []simulate.Event
	for _, name := range names {
		text, err := in.file("--event", name)
		if err != nil {
			return nil, err
		}
		events, err := simulate.ReadEvents(catalog, text)
		if err != nil {
			return nil, exit.Bad("--event=%s: %w", name, err)
		}
		all = append(all, events...)
	}
	if len(all) == 0 {
		return nil, exit.Bad("--event: the files hold no event")
	}
	return all, nil
}

// json reads a JSON document.
func (in *input) json(flag, name string) ([]byte, error) {
	text, err := in.file(flag, name)
	if err != nil {
		return nil, err
	}
	if !json.Valid(text) {
		return nil, exit.Bad("%s=%s: the file holds no JSON", flag, name)
	}
	return text, nil
}
