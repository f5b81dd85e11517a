package samples

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// Set is the samples: subscriptions, and all that they need.
type Set struct {
	// Namespace is that of the subscriptions.
	Namespace string
	// Keys are the subscriptions' signing keys, as their Secrets hold them.
	Keys []string
	// Events are one for each subscription, as a producer publishes it.
	Events [][]byte

	objects       []*unstructured.Unstructured
	subscriptions []*unstructured.Unstructured // of objects
}

// Read returns the samples that the binary holds.
func Read() (*Set, error) {
	s := &Set{}
	text, err := manifests.ReadFile("kustomization.yaml")
	if err != nil {
		return nil, err
	}
	var list struct{ Resources []string } // in the order in which they can be applied
	if err := sigsyaml.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("config/samples/kustomization.yaml: %w", err)
	}
	for _, file := range list.Resources {
		if err := s.add(file); err != nil {
			return nil, fmt.Errorf("config/samples/%s: %w", file, err)
		}
	}
	if err := s.findKeys(); err != nil {
		return nil, err
	}
	files, err := fs.Glob(events, "events/*.json")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := events.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s.Events = append(s.Events, text)
	}
	return s, nil
}

// add reads the documents of a file.
func (s *Set) add(file string) error {
	text, err := manifests.ReadFile(file)
	if err != nil {
		return err
	}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		o := &unstructured.Unstructured{}
		if err := sigsyaml.Unmarshal(document, &o.Object); err != nil {
			return err
		}
		s.objects = append(s.objects, o)
		if o.GetKind() == "WebhookSubscription" {
			s.subscriptions = append(s.subscriptions, o)
			s.Namespace = o.GetNamespace()
		}
	}
}

// findKeys finds each subscription's signing key among the Secrets.
func (s *Set) findKeys() error {
	secrets := make(map[string]map[string]string)
	for _, o := range s.objects {
		if o.GetKind() == "Secret" {
			secrets[o.GetName()], _, _ = unstructured.NestedStringMap(o.Object, "stringData")
		}
	}
	for _, o := range s.subscriptions {
		ref, _, _ := unstructured.NestedStringMap(o.Object, "spec", "signing", "secretRef")
		key, ok := secrets[ref["name"]][ref["key"]]
		if !ok {
			return fmt.Errorf("config/samples: the signing key of %s is not among them", o.GetName())
		}
		s.Keys = append(s.Keys, key)
	}
	return nil
}

// Manifests returns the samples as YAML. Each subscription's URL is endpoint with the subscription's name as its path.
func (s *Set) Manifests(endpoint string) ([]byte, error) {
	for _, o := range s.subscriptions {
		unstructured.RemoveNestedField(o.Object, "spec", "urlFrom")
		if err := unstructured.SetNestedField(o.Object, endpoint+"/"+o.GetName(), "spec", "url"); err != nil {
			return nil, err
		}
	}
	var text bytes.Buffer
	for _, o := range s.objects {
		document, err := sigsyaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		text.WriteString("---\n")
		text.Write(document)
	}
	return text.Bytes(), nil
}
