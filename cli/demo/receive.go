package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/clinikapi/eventflow/api/signature"
)

// keyVariable holds one more key, for pods that take it from a Secret.
const keyVariable = "DEMO_KEY"

// stopTimeout is how long requests that have begun may take to end.
const stopTimeout = 5 * time.Second

func receiveCommand() *cobra.Command {
	var listen, output string
	var keys []string
	r := &receiver{}
	command := &cobra.Command{
		Use:   "receive",
		Short: "Receive webhooks: verify their signatures, deduplicate and print them",
		Example: "  # as the endpoint http://127.0.0.1:9400 of a subscription\n" +
			"  eventflow demo receive --key=\"$(cat signing-key)\" --fail-first=2",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if key := os.Getenv(keyVariable); key != "" {
				keys = append(keys, key)
			}
			var err error
			if r.keys, err = parseKeys(keys); err != nil {
				return err
			}
			if r.report, err = printer(output, command.OutOrStdout()); err != nil {
				return err
			}
			if r.failFirst < 0 || r.failPercent < 0 || r.failPercent > 100 {
				return errors.New("--fail-first takes 0 or more, --fail-percent 0 to 100")
			}
			listener, err := (&net.ListenConfig{}).Listen(command.Context(), "tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "receiving at http://%s\n", listener.Addr())
			return serve(command.Context(), listener, r.handler())
		},
	}
	flags := command.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1:9400", "address")
	flags.StringArrayVar(&keys, "key", nil, "signing key, as its Secret holds it; may be repeated ($"+keyVariable+" is one more)")
	flags.StringVar(&output, "output", "text", "text, or json for one object a line")
	flags.IntVar(&r.failFirst, "fail-first", 0, "answer the first N attempts of each delivery with 503, to see retries")
	flags.IntVar(&r.failPercent, "fail-percent", 0, "answer that many of a hundred attempts with 503")
	return command
}

func parseKeys(texts []string) (signature.Keys, error) {
	if len(texts) == 0 {
		return nil, fmt.Errorf("--key or $%s is missing: the key of the subscription's signing Secret", keyVariable)
	}
	var keys signature.Keys
	for _, text := range texts {
		key, err := signature.ParseKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// serve answers until ctx ends, and finishes what it has begun.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	var stopping sync.WaitGroup
	stopping.Go(func() {
		<-ctx.Done()
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_ = server.Shutdown(deadline) // what is cut off is tried again
	})
	err := server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		stopping.Wait()
		return nil
	}
	return err
}

// printer returns the function that prints an attempt.
func printer(output string, w io.Writer) (func(attempt), error) {
	switch output {
	case "text":
		return func(a attempt) { fmt.Fprintln(w, a) }, nil
	case "json":
		return func(a attempt) { fmt.Fprintln(w, a.json()) }, nil
	default:
		return nil, fmt.Errorf("--output=%q: want text or json", output)
	}
}
