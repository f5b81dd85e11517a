package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// arrival is how long the sample events may take to arrive; longer if they are refused first.
const arrival = 3 * time.Minute

// demonstrate publishes the sample events and shows what became of them.
func (s *session) demonstrate(ctx context.Context) error {
	token, err := s.kube(ctx, "--namespace="+sampleNamespace, "create", "token", "ehr")
	if err != nil {
		return err
	}
	s.say("• publish an event of each automation in the Event Flow guide, as the ServiceAccount ehr")
	for _, event := range s.samples.Events {
		if err := s.publish(ctx, strings.TrimSpace(string(token)), event); err != nil {
			return fmt.Errorf("publish %s: %w", event, err)
		}
	}
	if err := s.awaitArrival(ctx, len(s.samples.Events)); err != nil {
		s.showLogs()
		return err
	}
	_, err = s.kube(ctx, "--namespace="+sampleNamespace, "wait", "--for=jsonpath={.status.deliveries.delivered}=1", "--timeout=60s", "webhooksubscriptions", "--all")
	if err != nil {
		return err
	}
	table, err := s.kube(ctx, "--namespace="+sampleNamespace, "get", "webhooksubscriptions")
	if err != nil {
		return err
	}
	s.say("\n$ kubectl --namespace=%s get webhooksubscriptions\n%s", sampleNamespace, bytes.TrimRight(table, "\n"))
	if !s.once {
		s.say("\n%s", s.instructions())
	}
	return nil
}

func (s *session) publish(ctx context.Context, token string, event []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.eventsURL(), bytes.NewReader(event))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	s.say("  %d %s", response.StatusCode, bytes.TrimSpace(answer))
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("it was not accepted")
	}
	return nil
}

func (s *session) eventsURL() string {
	return "http://" + s.api + "/v1/namespaces/" + sampleNamespace + "/events"
}

// awaitArrival returns once the receiver has taken that many deliveries.
func (s *session) awaitArrival(ctx context.Context, wanted int) error {
	late := time.After(arrival)
	for taken := 0; taken < wanted; {
		select {
		case line := <-s.received:
			if strings.Contains(line, "  200  ") {
				taken++
			}
		case err := <-s.died:
			return err
		case <-late:
			return fmt.Errorf("%d of %d events arrived within %s", taken, wanted, arrival)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// instructions say how to go on.
func (s *session) instructions() string {
	environment := "export KUBECONFIG=" + s.kubeconfig
	if _, err := exec.LookPath("kubectl"); err != nil {
		environment += " PATH=" + filepath.Dir(s.kubectl) + ":$PATH"
	}
	return `Everything runs. In another terminal:

  ` + environment + `

publish another event:

  curl -i ` + s.eventsURL() + ` \
    -H "Authorization: Bearer $(kubectl --namespace=` + sampleNamespace + ` create token ehr)" \
    -H "Content-Type: application/json" \
    -d '{"type":"patient.created","data":{"resourceType":"patient","resourceId":"pt_1","action":"created"}}'

and look at what became of it:

  kubectl --namespace=` + sampleNamespace + ` get webhooksubscriptions
  kubectl --namespace=` + sampleNamespace + ` describe webhooksubscription patient-onboarding

The logs of the manager and the dispatcher are in ` + s.dir + `.
Ctrl-C stops all of it and cleans up.`
}
