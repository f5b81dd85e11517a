package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// kustomize builds a folder's manifests.
func (s *session) kustomize(ctx context.Context, folder string) ([]*unstructured.Unstructured, error) {
	text, err := s.kube(ctx, "kustomize", folder)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", folder, err)
		}
		o := &unstructured.Unstructured{}
		if err := sigsyaml.Unmarshal(document, &o.Object); err != nil {
			return nil, fmt.Errorf("read %s: %w", folder, err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

func encode(objects []*unstructured.Unstructured) ([]byte, error) {
	var text bytes.Buffer
	for _, o := range objects {
		document, err := sigsyaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		text.WriteString("---\n")
		text.Write(document)
	}
	return text.Bytes(), nil
}

// applySamples applies config/samples with the receiver's URL in place of their own.
func (s *session) applySamples(ctx context.Context) error {
	text, err := s.samples.Manifests(s.endpoint)
	if err != nil {
		return err
	}
	if s.cluster != "" {
		s.cleanup(func(ctx context.Context) error {
			_, err := s.command(ctx, bytes.NewReader(text), s.kubectl, "delete", "--ignore-not-found", "-f", "-")
			return err
		})
	}
	if err := s.apply(ctx, text); err != nil {
		return err
	}
	_, err = s.kube(ctx, "--namespace="+sampleNamespace, "wait", "--for=condition=Ready", "--timeout=60s", "webhooksubscriptions", "--all")
	if err != nil && ctx.Err() == nil {
		s.showConditions(ctx)
	}
	return err
}

// showConditions shows what the subscriptions say of themselves.
func (s *session) showConditions(ctx context.Context) {
	conditions, err := s.kube(ctx, "--namespace="+sampleNamespace, "get", "webhooksubscriptions", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{range .status.conditions[*]}{"\n  "}{.type}={.status} {.reason}: {.message}{end}{"\n"}{end}`)
	if err == nil {
		s.say("--- what the subscriptions say:\n%s", conditions)
	}
}
