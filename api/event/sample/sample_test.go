package sample

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// TestEveryTypeHasASample: each of the 42 types has one, with coherent ids, and times relative to the present.
func TestEveryTypeHasASample(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 15, 4, 5, 0, time.UTC)
	ids := map[string]bool{}
	references := map[string]string{}
	for _, resource := range event.Resources {
		for _, action := range event.Actions {
			typ := event.Type(resource + "." + string(action))
			e, err := New(typ, at)
			if err != nil {
				t.Errorf("%s: %v", typ, err)
				continue
			}
			var data, previous map[string]any
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatalf("%s: %v: %s", typ, err, e.Data)
			}
			if data["resourceType"] != resource || data["resourceId"] != data["id"] || data["action"] != string(action) || data["tenantId"] != tenantID {
				t.Errorf("%s: %s", typ, e.Data)
			}
			if strings.Contains(string(e.Data), "@-") || regexp.MustCompile(`"@\d`).Match(e.Data) || e.Timestamp != "2026-03-02T15:04:05.000Z" {
				t.Errorf("%s has a time that is none: %s at %s", typ, e.Data, e.Timestamp)
			}
			if (action == event.Updated) != (e.Previous != nil) {
				t.Errorf("%s: previous is %s", typ, e.Previous)
			}
			if e.Previous != nil && (json.Unmarshal(e.Previous, &previous) != nil || previous["id"] != data["id"] || string(e.Previous) == string(e.Data)) {
				t.Errorf("%s: previous is %s", typ, e.Previous)
			}
			ids[data["id"].(string)] = true
			for _, key := range []string{"patientId", "practitionerId", "encounterId", "appointmentId"} {
				if id, ok := data[key].(string); ok {
					references[id] = string(typ)
				}
			}
		}
	}
	for id, typ := range references {
		if !ids[id] {
			t.Errorf("%s refers to %s, of which there is no sample", typ, id)
		}
	}
	if _, err := New("claim.created", at); err == nil {
		t.Error("there is a sample of a site's own resource")
	}
}

// TestNothingIsAboutAPerson: what could reach somebody is reserved for examples (RFC 2606; NANP's 555-01xx).
func TestNothingIsAboutAPerson(t *testing.T) {
	t.Parallel()
	for _, resource := range event.Resources {
		e, err := New(event.Type(resource+".created"), time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, phone := range regexp.MustCompile(`\+\d+`).FindAllString(string(e.Data), -1) {
			if !regexp.MustCompile(`^\+155501\d{5}$`).MatchString(phone) {
				t.Errorf("%s: the number %s is not reserved", resource, phone)
			}
		}
		for _, address := range regexp.MustCompile(`[\w.]+@[\w.]+`).FindAllString(string(e.Data), -1) {
			if !strings.HasSuffix(address, "@example.com") {
				t.Errorf("%s: the address %s is not reserved", resource, address)
			}
		}
	}
}
