// Package sample makes realistic events of every clinical type, for demonstrations and tests. Nothing in them is about a
// person: names, addresses and telephone numbers are those that are reserved for examples.
//
// The identifiers of a resource are always the same, and those of different resources belong together: the appointment, the
// encounter and the prescription are of one patient. So an updated event is about what the created one made. Times are
// relative to the time given: an appointment begins in three days.
package sample

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

//go:embed resources
var resources embed.FS

// tenantID is data.tenantId of every sample.
const tenantID = "org_sample01"

// file is what stands in resources: the data when the resource is created, and what an update and a deletion change of it. A
// text such as "@74h" is a time, that long after the present.
type file struct {
	Data    map[string]any `json:"data"`
	Updated map[string]any `json:"updated"`
	Deleted map[string]any `json:"deleted"`
}

// Event is a sample as a producer publishes it.
type Event struct {
	ID        string          `json:"id,omitempty"`
	Type      event.Type      `json:"type"`
	Timestamp string          `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
	// Previous is the data before an update.
	Previous json.RawMessage `json:"previous,omitempty"`
}

// ErrNone is the error of a type that has no sample: its resource is a site's own.
var ErrNone = errors.New("there is no sample of the type: give its data")

// New returns a sample of a type, at a time. It fails with ErrNone if there is none.
func New(t event.Type, at time.Time) (Event, error) {
	e := Event{Type: t, Timestamp: at.UTC().Format(event.TimeFormat)}
	text, err := fs.ReadFile(resources, "resources/"+t.Resource()+".json")
	if err != nil {
		return e, ErrNone
	}
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return e, fmt.Errorf("read the sample of %q: %w", t, err)
	}
	switch t.Action() {
	case event.Created:
		e.Data, err = encode(t, at, f.Data)
	case event.Updated:
		before := event.Type(t.Resource() + "." + string(event.Created))
		if e.Previous, err = encode(before, at, f.Data); err == nil {
			e.Data, err = encode(t, at, f.Data, f.Updated)
		}
	case event.Deleted:
		e.Data, err = encode(t, at, f.Data, f.Deleted)
	default:
		err = errors.New("the type ends in none of created, updated and deleted")
	}
	return e, err
}

// encode writes the data of an event: the parts, the later over the earlier, behind the keys that every event of ClinikAPI has.
func encode(t event.Type, at time.Time, parts ...map[string]any) ([]byte, error) {
	all := map[string]any{}
	for _, part := range parts {
		maps.Copy(all, part)
	}
	id, err := json.Marshal(all["id"])
	if err != nil {
		return nil, fmt.Errorf("write the sample's id: %w", err)
	}
	rest, err := json.Marshal(resolve(all, at))
	if err != nil {
		return nil, fmt.Errorf("write the sample: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"resourceType":%q,"resourceId":%s,"action":%q,"tenantId":%q,`, t.Resource(), id, t.Action(), tenantID)
	b.Write(rest[1:])
	return b.Bytes(), nil
}

// resolve replaces the times within a value.
func resolve(value any, at time.Time) any {
	switch value := value.(type) {
	case map[string]any:
		resolved := make(map[string]any, len(value))
		for key, inner := range value {
			resolved[key] = resolve(inner, at)
		}
		return resolved
	case []any:
		resolved := make([]any, len(value))
		for i, inner := range value {
			resolved[i] = resolve(inner, at)
		}
		return resolved
	case string:
		if after, ok := strings.CutPrefix(value, "@"); ok {
			if d, err := time.ParseDuration(after); err == nil {
				step := time.Minute
				if d > 0 { // people plan by the clock
					step = 30 * time.Minute
				}
				return at.Add(d).UTC().Truncate(step).Format(time.RFC3339)
			}
		}
	}
	return value
}
