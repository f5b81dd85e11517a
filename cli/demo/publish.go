package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// pause is the wait before a publish is tried again.
const pause = 500 * time.Millisecond

// publisher posts events as a producer does: the same id again until the dispatcher has answered for it.
type publisher struct {
	to, namespace, tokenFile, event string
	count                           int
	patience                        time.Duration
	client                          *http.Client
	out                             io.Writer
}

func publishCommand() *cobra.Command {
	p := publisher{client: &http.Client{Timeout: 30 * time.Second}}
	command := &cobra.Command{
		Use:   "publish",
		Short: "Publish an event; again while the dispatcher is unavailable",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			p.out = command.OutOrStdout()
			return p.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringVar(&p.to, "to", "http://127.0.0.1:8080", "the dispatcher's URL, up to the path")
	flags.StringVar(&p.namespace, "namespace", "default", "namespace of the event")
	flags.StringVar(&p.tokenFile, "token-file", "", "file with the token to send")
	flags.StringVar(&p.event, "event", `{"type":"patient.created","data":{}}`, "the event; # stands for its number")
	flags.IntVar(&p.count, "count", 1, "how many")
	flags.DurationVar(&p.patience, "retry-for", 0, "how long to try again if the dispatcher is unavailable or busy")
	return command
}

func (p *publisher) run(ctx context.Context) error {
	for n := 1; n <= p.count; n++ {
		if err := p.publish(ctx, strings.ReplaceAll(p.event, "#", fmt.Sprint(n))); err != nil {
			return err
		}
	}
	return nil
}

// publish posts one event until it is accepted, refused, or patience is at its end.
func (p *publisher) publish(ctx context.Context, event string) error {
	deadline := time.Now().Add(p.patience)
	for {
		err := p.post(ctx, event)
		var later *laterError
		if err == nil || !errors.As(err, &later) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// laterError is an error that may pass.
type laterError struct{ cause error }

func (e *laterError) Error() string { return e.cause.Error() }
func (e *laterError) Unwrap() error { return e.cause }

func (p *publisher) post(ctx context.Context, event string) error {
	target := strings.TrimRight(p.to, "/") + "/v1/namespaces/" + url.PathEscape(p.namespace) + "/events"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(event))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if p.tokenFile != "" {
		token, err := os.ReadFile(p.tokenFile)
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	response, err := p.client.Do(request)
	if err != nil {
		return &laterError{err}
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return &laterError{err}
	}
	switch code := response.StatusCode; code {
	case http.StatusOK, http.StatusAccepted:
		fmt.Fprintf(p.out, "%d %s\n", code, strings.TrimSpace(string(answer)))
		return nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &laterError{fmt.Errorf("%d %s", code, answer)}
	default:
		return fmt.Errorf("%d %s", code, strings.TrimSpace(string(answer)))
	}
}
