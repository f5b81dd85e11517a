package folder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// content is what a file declares.
type content struct {
	subscriptions []*v1alpha1.WebhookSubscription
	secrets       []*corev1.Secret
	ignored       []string // the kinds of the resources that concern others
}

// manifest is the part of a document that tells what it is.
type manifest struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

const (
	// maxListDepth bounds lists of lists.
	maxListDepth = 3
	// maxDurationLength is that of the schema, as is durationRule.
	maxDurationLength = 32
)

var durationRule = regexp.MustCompile(`^([0-9]+([.][0-9]+)?(ms|s|m|h))+$`) //nolint:gocritic // it is spelled as in the schema

// parse reads a file's text. Where it cannot read all of it, it returns what it could, and why.
func parse(name string, text []byte) (*content, error) {
	c := &content{}
	documents, err := split(name, text)
	problems := []error{err}
	for i, document := range documents {
		if err := c.add(document, 1); err != nil {
			problems = append(problems, fmt.Errorf("document %d: %w", i+1, err))
		}
	}
	return c, errors.Join(problems...)
}

// split returns a file's documents as JSON, up to the first that is none.
func split(name string, text []byte) ([][]byte, error) {
	if strings.ToLower(filepath.Ext(name)) == ".json" {
		return splitJSON(text)
	}
	var documents [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, fmt.Errorf("split into documents: %w", err)
		}
		converted, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return documents, fmt.Errorf("document %d: %w", len(documents)+1, err)
		}
		documents = append(documents, converted)
	}
}

func splitJSON(text []byte) ([][]byte, error) {
	var documents [][]byte
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, fmt.Errorf("document %d: %w", len(documents)+1, err)
		}
		documents = append(documents, document)
	}
}

// add takes up one document.
func (c *content) add(document []byte, depth int) error {
	if string(bytes.TrimSpace(document)) == "null" {
		return nil // nothing but comments
	}
	var m manifest
	if err := json.Unmarshal(document, &m); err != nil {
		return fmt.Errorf("read apiVersion and kind: %w", withoutValue(err))
	}
	group, _, _ := strings.Cut(m.APIVersion, "/")
	ours := group == v1alpha1.GroupVersion.Group
	switch {
	case m.APIVersion == "" || m.Kind == "":
		return errors.New("apiVersion and kind must be set")
	case m.APIVersion == "v1" && (m.Kind == "List" || m.Kind == "SecretList"),
		m.APIVersion == v1alpha1.GroupVersion.String() && m.Kind == "WebhookSubscriptionList":
		return c.addItems(m, depth)
	case m.APIVersion == "v1" && m.Kind == "Secret":
		return c.addSecret(document)
	case m.APIVersion == v1alpha1.GroupVersion.String() && m.Kind == "WebhookSubscription":
		return c.addSubscription(document)
	case ours && m.Kind == "WebhookSubscription":
		return fmt.Errorf("apiVersion %q is not known: want %s", m.APIVersion, v1alpha1.GroupVersion)
	case ours && m.Kind != "WebhookDispatcher" && m.Kind != "WebhookDispatcherList":
		return fmt.Errorf("kind %q is not known in %s", m.Kind, v1alpha1.GroupVersion.Group)
	}
	c.ignored = append(c.ignored, m.Kind)
	return nil
}

func (c *content) addItems(list manifest, depth int) error {
	if depth > maxListDepth {
		return fmt.Errorf("lists are nested more than %d deep", maxListDepth)
	}
	var problems []error
	for i, item := range list.Items {
		if err := c.add(item, depth+1); err != nil {
			problems = append(problems, fmt.Errorf("item %d: %w", i+1, err))
		}
	}
	return errors.Join(problems...)
}

func (c *content) addSubscription(document []byte) error {
	sub := &v1alpha1.WebhookSubscription{}
	if err := decode(document, sub); err != nil {
		return fmt.Errorf("decode WebhookSubscription: %w", err)
	}
	if sub.Name == "" {
		return errors.New("a WebhookSubscription's metadata.name must be set")
	}
	if sub.Namespace == "" {
		sub.Namespace = defaultNamespace
	}
	if err := checkWritten(document, sub); err != nil {
		return fmt.Errorf("WebhookSubscription %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	c.subscriptions = append(c.subscriptions, sub)
	return nil
}

func (c *content) addSecret(document []byte) error {
	secret := &corev1.Secret{}
	if err := decode(document, secret); err != nil {
		return fmt.Errorf("decode Secret: %w", err)
	}
	if len(validation.IsDNS1123Subdomain(secret.Name)) > 0 {
		return errors.New("a Secret's metadata.name must be set, to a lower-case DNS name")
	}
	if secret.Namespace == "" {
		secret.Namespace = defaultNamespace
	}
	c.secrets = append(c.secrets, secret)
	return nil
}

// decode reads a document as the API server does with strict validation: unknown fields and repeated ones are errors.
func decode(document []byte, into any) error {
	strict, err := strictjson.UnmarshalStrict(document, into)
	if err != nil {
		return withoutValue(err)
	}
	return errors.Join(strict...)
}

// withoutValue returns an error that names the field and keeps what stands in it: that may be a Secret's.
func withoutValue(err error) error {
	if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind, _, _ := strings.Cut(typed.Value, " ")
		return fmt.Errorf("field %q: %s is not what belongs there", typed.Field, kind)
	}
	return err
}

// checkWritten refuses what the schema does and a decoded spec does not show any more, such as a number that is 0 or a
// text that is empty. Taken as absent, "maxAge: 0s" would mean 72 h.
func checkWritten(document []byte, sub *v1alpha1.WebhookSubscription) error {
	var written, kept struct {
		Spec map[string]any `json:"spec"`
	}
	again, err := json.Marshal(sub)
	if err != nil {
		return fmt.Errorf("encode the spec: %w", err)
	}
	if err := errors.Join(json.Unmarshal(document, &written), json.Unmarshal(again, &kept)); err != nil {
		return fmt.Errorf("compare the spec: %w", withoutValue(err))
	}
	return errors.Join(missing("spec", written.Spec, kept.Spec), checkDurations(written.Spec))
}

// checkDurations refuses the units that the schema does: what works in a folder must work with kubectl apply.
func checkDurations(spec map[string]any) error {
	retry, _ := spec["retry"].(map[string]any)
	for name, value := range map[string]any{
		"timeout": spec["timeout"], "retry.initialDelay": retry["initialDelay"], "retry.maxDelay": retry["maxDelay"], "retry.maxAge": retry["maxAge"],
	} {
		if text, ok := value.(string); ok && (len(text) > maxDurationLength || !durationRule.MatchString(text)) {
			return fmt.Errorf("spec.%s must be a duration such as 1m30s, in ms, s, m and h", name)
		}
	}
	return nil
}

// missing returns an error that names the first field of written that is not in kept, unless it is null or an object with
// nothing in it.
func missing(path string, written, kept any) error {
	switch written := written.(type) {
	case map[string]any:
		inner, _ := kept.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(written)) {
			value := written[name]
			_, object := value.(map[string]any)
			if _, ok := inner[name]; !ok && !object && value != nil {
				return fmt.Errorf("%s.%s must not be empty or zero", path, name)
			}
			if err := missing(path+"."+name, value, inner[name]); err != nil {
				return err
			}
		}
	case []any:
		inner, _ := kept.([]any)
		for i := range min(len(written), len(inner)) {
			if err := missing(fmt.Sprintf("%s[%d]", path, i), written[i], inner[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
