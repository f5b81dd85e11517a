package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// policy has the API server note each request once, when it is answered, without bodies.
const policy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- level: None
  users: ["system:apiserver"]
- level: Metadata
`

// request is what is counted of one.
type request struct {
	User, Verb, Resource, Namespace, Name string
	Failed                                bool
}

// write reports whether it is to change something that lasts. Reviews and tokens are created, and do not.
func (r request) write() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return !strings.HasSuffix(r.Resource, "reviews") && r.Resource != "serviceaccounts/token" && r.Resource != "leases"
	}
	return false
}

// auditLog reads what the API server noted since it was read last.
type auditLog struct {
	path   string
	offset int64
}

// line is an audit event.
type line struct {
	Stage, Verb string
	User        struct{ Username string }
	ObjectRef   struct{ Resource, Subresource, Namespace, Name string }
	// ResponseStatus of a watch that ended well is 200, too.
	ResponseStatus struct{ Code int }
}

// next hands each request to note that was answered since the last call.
func (a *auditLog) next(note func(request)) error {
	file, err := os.Open(a.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(file, 1<<20)
	for {
		text, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line that is not whole yet is read the next time
		}
		if err != nil {
			return err
		}
		a.offset += int64(len(text))
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if l.Verb == "watch" || l.ObjectRef.Resource == "" {
			continue
		}
		resource := l.ObjectRef.Resource
		if l.ObjectRef.Subresource != "" {
			resource += "/" + l.ObjectRef.Subresource
		}
		note(request{
			User: short(l.User.Username), Verb: l.Verb, Resource: resource, Namespace: l.ObjectRef.Namespace, Name: l.ObjectRef.Name,
			Failed: l.ResponseStatus.Code >= 400,
		})
	}
}

// The users whose requests are told apart.
const (
	userManager    = "manager"
	userDispatcher = "dispatcher"
	userAuthor     = "author"
)

// short is who a user is in the table.
func short(user string) string {
	switch {
	case strings.HasSuffix(user, ":eventflow-manager"):
		return userManager
	case strings.HasSuffix(user, ":"+dispatcherAccount):
		return userDispatcher
	default:
		return userAuthor
	}
}

// tally counts requests.
type tally map[string]int

func (t tally) add(r request) {
	key := r.User + " " + r.Verb + " " + r.Resource
	if r.Failed {
		key += " (failed)"
	}
	t[key]++
}

// lines are the counts, the largest first.
func (t tally) lines() []string {
	keys := slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		if t[a] != t[b] {
			return t[b] - t[a]
		}
		return strings.Compare(a, b)
	})
	lines := make([]string, len(keys))
	for i, key := range keys {
		lines[i] = fmt.Sprintf("%6d %s", t[key], key)
	}
	return lines
}
