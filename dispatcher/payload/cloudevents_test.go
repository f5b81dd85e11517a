package payload

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// TestCloudEventsSDK: the SDK reads what is sent, in both modes.
func TestCloudEventsSDK(t *testing.T) {
	t.Parallel()
	for name, format := range map[string]Format{"structured": CloudEvents, "binary": CloudEventsBinary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &fakeClient{result: egress.Result{StatusCode: 200}}
			run(t, c, newRequest(t, Spec{Format: format}, patient))
			header := http.Header{"Content-Type": {"application/json"}}
			if at := c.sent[0].Shape.ContentType; at != "" {
				header.Set("Content-Type", at)
			}
			for _, f := range c.sent[0].Shape.Attributes {
				header.Set(f.Name, f.Value)
			}
			message := cehttp.NewMessage(header, io.NopCloser(bytes.NewReader(c.sent[0].Body)))
			got, err := binding.ToEvent(t.Context(), message)
			if err != nil {
				t.Fatal(err)
			}
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
			if got.ID() != eventID || got.Type() != "patient.created" || got.Subject() != "pt_1" || got.Source() != "/namespaces/clinic-a" ||
				!got.Time().Equal(eventTime) || got.DataContentType() != "application/json" || string(got.Data()) != patient {
				t.Errorf("%s", got)
			}
		})
	}
}
