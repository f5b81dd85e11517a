package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event/sample"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 16 << 20

// api is a dispatcher's API in a namespace.
type api struct {
	base      string
	namespace string
	userAgent string
	client    *http.Client
	// found is the WebhookDispatcher that base comes from; nil if the user named it.
	found *v1alpha1.WebhookDispatcher
}

// delivery is one as the API shows it; see docs/publishing.md.
type delivery struct {
	ID              string
	Event           struct{ ID string }
	Subscription    string
	State           string
	AttemptCount    int
	NextAttemptTime time.Time
	PlannedTime     time.Time
	Reason          string
	Attempts        []attempt
}

// attempt is one of a delivery.
type attempt struct {
	Number         int
	DurationMillis int64
	StatusCode     int
	Error          string
}

// publish publishes an event, and returns how many deliveries it has.
func (a *api) publish(ctx context.Context, e sample.Event) (int, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("write the event: %w", err)
	}
	var answer struct{ Deliveries int }
	err = a.request(ctx, http.MethodPost, "events", body, &answer)
	return answer.Deliveries, err
}

// list returns the deliveries of the newest events from one token to the next.
func (a *api) list(ctx context.Context, token string) (page []delivery, next string, err error) {
	query := url.Values{"limit": {"1000"}}
	if token != "" {
		query.Set("continue", token)
	}
	var answer struct {
		Items    []delivery
		Continue string
	}
	err = a.request(ctx, http.MethodGet, "deliveries?"+query.Encode(), nil, &answer)
	return answer.Items, answer.Continue, err
}

func (a *api) get(ctx context.Context, id string) (d delivery, err error) {
	err = a.request(ctx, http.MethodGet, "deliveries/"+url.PathEscape(id), nil, &d)
	return d, err
}

// request makes one request below the namespace, and decodes its answer.
func (a *api) request(ctx context.Context, method, path string, body []byte, answer any) error {
	r, err := http.NewRequestWithContext(ctx, method, a.base+"/v1/namespaces/"+url.PathEscape(a.namespace)+"/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("User-Agent", a.userAgent)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(r)
	if err != nil {
		return a.unreachable(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the dispatcher's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusAccepted {
		return refused(response.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the server's answer is not that of a dispatcher: %w", err)
	}
	return nil
}

// unreachable says what to do where the dispatcher cannot be reached: its Service is for pods of the cluster.
func (a *api) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the URL
	}
	if a.found == nil {
		return fmt.Errorf("the dispatcher cannot be reached: %w; see whether --server is right", err)
	}
	port := "80"
	if u, parsed := url.Parse(a.base); parsed == nil {
		port = u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
	}
	scheme, _, _ := strings.Cut(a.base, "://")
	return fmt.Errorf("the dispatcher's Service cannot be reached from here (%w): run \"kubectl -n %s port-forward service/eventflow-dispatcher-%s 8080:%s\", and add --server %s://127.0.0.1:8080",
		err, a.found.Namespace, a.found.Name, port, scheme)
}

// refused says why the dispatcher refused a request, as its problem document has it.
func refused(status int, text []byte) error {
	var problem struct{ Title, Detail string }
	if err := json.Unmarshal(text, &problem); err != nil || problem.Title == "" {
		return fmt.Errorf("the server answered with %d, and no dispatcher's problem document: see whether --server is right", status)
	}
	message := fmt.Sprintf("the dispatcher refuses it (%d): %s", status, problem.Title)
	if problem.Detail != "" {
		message += ": " + problem.Detail
	}
	if status == http.StatusUnauthorized {
		message += "; give a token with --token-file, or a ServiceAccount that may publish with --service-account"
	}
	return errors.New(message)
}
