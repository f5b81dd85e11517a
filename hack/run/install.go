package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// ready is how long a part may take to come up.
const ready = time.Minute

// dispatcherManifest lets deliveries reach the receiver on this machine. No pods come of it: there is no kubelet here.
const dispatcherManifest = `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: default, namespace: eventflow-system}
spec:
  egress: {allowHTTP: true, allowedCIDRs: [127.0.0.0/8]}
  ingest: {tls: {mode: Disabled}} # it listens on this machine alone, and nothing mounts a certificate
`

// install applies config/default but for the manager's Deployment, whose process runs here.
func (s *session) install(ctx context.Context) error {
	objects, err := s.kustomize(ctx, filepath.Join("config", "default"))
	if err != nil {
		return err
	}
	kept := objects[:0]
	for _, o := range objects {
		if o.GetKind() != "Deployment" {
			kept = append(kept, o)
		}
	}
	if s.manifests, err = encode(kept); err != nil {
		return err
	}
	if s.cluster != "" {
		s.cleanup(func(ctx context.Context) error {
			_, err := s.command(ctx, bytes.NewReader(s.manifests), s.kubectl, "delete", "--ignore-not-found", "-f", "-")
			return err
		})
	}
	if err := s.apply(ctx, s.manifests); err != nil {
		return err
	}
	_, err = s.kube(ctx, "wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions",
		"webhooksubscriptions.webhooks.clinikapi.com", "webhookdispatchers.webhooks.clinikapi.com", "webhookreplays.webhooks.clinikapi.com", "webhookdestinations.webhooks.clinikapi.com")
	return err
}

func (s *session) startManager(ctx context.Context) error {
	config, err := s.serviceAccountConfig(ctx, systemNamespace, "eventflow-manager")
	if err != nil {
		return err
	}
	s.manager, err = s.start("manager", nil, s.binary(), "manager", "--kubeconfig="+config,
		"--metrics-bind-address=0", "--health-probe-bind-address=0", "--create-default-dispatcher=false", "--dispatcher-image=eventflow:dev")
	return err
}

// startDispatcher starts the process that the Deployment's pod would be, on a store and at addresses of its own.
func (s *session) startDispatcher(ctx context.Context) error {
	if err := s.apply(ctx, []byte(dispatcherManifest)); err != nil {
		return err
	}
	if s.cluster != "" {
		s.cleanup(s.deleteDispatcher)
	}
	const deployment = "deployment/eventflow-dispatcher-default"
	if _, err := s.kube(ctx, "--namespace="+systemNamespace, "wait", "--for=create", "--timeout=60s", deployment); err != nil {
		return err
	}
	text, err := s.kube(ctx, "--namespace="+systemNamespace, "get", deployment, "-o", "jsonpath={.spec.template.spec.containers[0].args}")
	if err != nil {
		return err
	}
	var args []string
	if err := json.Unmarshal(text, &args); err != nil {
		return fmt.Errorf("read the Deployment's arguments: %w", err)
	}
	config, err := s.serviceAccountConfig(ctx, systemNamespace, "eventflow-dispatcher-default")
	if err != nil {
		return err
	}
	args = append(args, "--kubeconfig="+config, "--store=pebble:"+filepath.Join(s.dir, "store"), "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0")
	listening := make(chan string, 1)
	watch := func(line string) {
		var entry struct{ Msg, API string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.API != "" {
			listening <- entry.API
		}
	}
	if s.dispatcher, err = s.start("dispatcher", watch, s.binary(), args...); err != nil {
		return err
	}
	s.api, err = s.hear(ctx, listening)
	return err
}

// deleteDispatcher deletes it while its definition is there. The volume goes with the namespace.
func (s *session) deleteDispatcher(ctx context.Context) error {
	_, err := s.kube(ctx, "--namespace="+systemNamespace, "delete", "webhookdispatcher", "default")
	return err
}

// hear waits for what a process says when it is up.
func (s *session) hear(ctx context.Context, said <-chan string) (string, error) {
	select {
	case text := <-said:
		return text, nil
	case err := <-s.died:
		return "", err
	case <-time.After(ready):
		return "", fmt.Errorf("it was not ready within %s", ready)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// startReceiver starts the demo receiver with the samples' keys.
func (s *session) startReceiver(ctx context.Context) error {
	args := []string{"demo", "receive", "--listen=127.0.0.1:0", fmt.Sprintf("--fail-first=%d", s.failFirst)}
	for _, key := range s.samples.Keys {
		args = append(args, "--key="+key)
	}
	listening := make(chan string, 1)
	watch := func(line string) {
		if _, url, found := strings.Cut(line, "receiving at "); found {
			listening <- url
			return
		}
		s.say("  receiver │ %s", line)
		select {
		case s.received <- line:
		default: // nobody counts any more
		}
	}
	var err error
	if s.receiver, err = s.start("receiver", watch, s.binary(), args...); err != nil {
		return err
	}
	s.endpoint, err = s.hear(ctx, listening)
	return err
}
