package virtual

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/test/kit/fakes"
)

// taken lists what providers took, but for access tokens and what was read: method and path of each request that was answered
// 2xx.
func (c *clinic) taken() []string {
	c.Helper()
	var all []string
	for _, r := range c.requests() {
		if r.Status/100 == 2 && r.Method != http.MethodGet && r.Path != "/oauth2/token" {
			all = append(all, fmt.Sprint(r.Method, " ", r.Path))
		}
	}
	slices.Sort(all)
	return all
}

// TestAtOnce: the automations that plan nothing. Their provider is down when the event comes, a dispatcher dies, and the provider
// is back: each request is taken once.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	const began = "2026-01-12 10:00"
	encounter := map[string]any{"id": "enc_1", "status": "finished"}
	observation := map[string]any{"id": "obs_1", "patientId": "pt_1", "code": "Troponin", "value": 1.5, "unit": "ng/mL", "flag": "critical", "providerEmail": "doctor@example.com"}
	prescription := map[string]any{"id": "rx_1", "patientId": "pt_1", "medication": "Metformin", "dosage": "500 mg", "practitionerId": "pr_1", "patientPhone": phone}
	for name, tc := range map[string]struct {
		folder, kind string
		data         map[string]any
		down         func(c *clinic) []*fakes.Provider
		want         func(c *clinic) []string
	}{
		"billing": {
			folder: "billing", kind: "encounter.updated", data: encounter,
			down: func(c *clinic) []*fakes.Provider { return []*fakes.Provider{c.Billing.Provider} },
			want: func(*clinic) []string { return []string{"POST /claims"} },
		},
		"billing, what it reads is down": {
			folder: "billing", kind: "encounter.updated", data: encounter,
			down: func(c *clinic) []*fakes.Provider { return []*fakes.Provider{c.Clinik.Provider} },
			want: func(*clinic) []string { return []string{"POST /claims"} },
		},
		"care team": {
			folder: "care-team", kind: "observation.created", data: observation,
			down: func(c *clinic) []*fakes.Provider { return []*fakes.Provider{c.Slack.Provider, c.Postmark.Provider} },
			want: func(*clinic) []string { return []string{"POST /api/chat.postMessage", "POST /email"} },
		},
		"pharmacy": {
			folder: "pharmacy", kind: "prescription.created", data: prescription,
			down: func(c *clinic) []*fakes.Provider { return []*fakes.Provider{c.Pharmacy.Provider, c.Twilio.Provider} },
			want: func(c *clinic) []string {
				return []string{"POST " + strings.TrimPrefix(c.Twilio.MessagesURL(), c.Twilio.URL), "POST /v1/prescriptions"}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, func(t *testing.T, p place) {
				c := newClinic(t, began, tc.folder)
				p.begin(c)
				for _, provider := range tc.down(c) {
					provider.Break(503)
				}
				c.event(tc.kind, tc.data)
				c.until("2026-01-12 10:20")
				if len(c.taken()) != 0 || len(c.list("", "Pending")) == 0 {
					t.Errorf("while they are down, they took %v", c.taken())
				}
				p.kill(c)
				c.settle()
				for _, provider := range tc.down(c) {
					provider.Break(0)
				}
				c.until("2026-01-14 10:00")
				want := tc.want(c)
				slices.Sort(want)
				c.expect(c.taken(), want...)
			})
		})
	}
}
