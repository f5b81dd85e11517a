package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clinikapi/eventflow/api/client"
)

// publisher publishes events as a producer does: the same id again until the dispatcher has answered for it.
type publisher struct {
	to, namespace, tokenFile, event string
	caFile                          string
	count                           int
	patience                        time.Duration
	transport                       http.RoundTripper // nil for the client's own
	out                             io.Writer
}

func publishCommand() *cobra.Command {
	p := publisher{}
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
	flags.StringVar(&p.caFile, "ca-file", "", "certificates, in PEM, that the dispatcher's own may be signed by")
	flags.StringVar(&p.event, "event", `{"type":"patient.created","data":{}}`, "the event; # stands for its number")
	flags.IntVar(&p.count, "count", 1, "how many")
	flags.DurationVar(&p.patience, "retry-for", 0, "how long to try again if the dispatcher is unavailable or busy")
	return command
}

func (p *publisher) run(ctx context.Context) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	for n := 1; n <= p.count; n++ {
		if err := p.publish(ctx, c, strings.ReplaceAll(p.event, "#", fmt.Sprint(n))); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) client() (*client.Client, error) {
	config := client.Config{URL: p.to, Transport: p.transport, RetryFor: p.patience}
	if p.patience == 0 {
		config.RetryFor = -1
	}
	if p.caFile != "" {
		text, err := os.ReadFile(p.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !config.TLS.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca-file=%s: the file holds no certificate in PEM", p.caFile)
		}
	}
	if p.tokenFile != "" {
		config.Token = client.TokenFile(p.tokenFile)
	}
	return client.New(config)
}

// publish publishes one event, and prints the answer.
func (p *publisher) publish(ctx context.Context, c *client.Client, text string) error {
	var e client.Event
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields() // it would be lost
	if err := decoder.Decode(&e); err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read the event: there is more behind it; use --count to publish several")
	}
	accepted, err := c.Publish(ctx, p.namespace, e)
	if err != nil {
		return err
	}
	code := http.StatusAccepted
	if accepted.Repeated {
		code = http.StatusOK
	}
	var answer bytes.Buffer
	if err := json.NewEncoder(&answer).Encode(accepted); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	_, err = fmt.Fprintf(p.out, "%d %s", code, &answer)
	return err
}
