package folder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	configMaps    []*corev1.ConfigMap
	namespaces    []*metav1.PartialObjectMetadata
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

// parse reads a file's text. Each document stands for itself: beside what it could read, parse returns what is wrong with
// each of those it could not, joined by errors.Join.
func parse(name string, text []byte) (*content, error) {
	c := &content{}
	documents := splitYAML
	if strings.ToLower(filepath.Ext(name)) == ".json" {
		documents = splitJSON
	}
	var problems []error
	n := 0
	for document, err := range documents(text) {
		n++
		if err == nil {
			err = c.add(document, 1)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("document %d: %w", n, err))
		}
	}
	return c, errors.Join(problems...)
}

// problemsOf returns what errors.Join joined.
func problemsOf(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// splitYAML yields a file's documents as JSON, or why one is no YAML.
func splitYAML(text []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil { // memory does not fail to be read
				yield(nil, fmt.Errorf("split into documents: %w", err))
				return
			}
			if !yield(yaml.YAMLToJSONStrict(document)) {
				return
			}
		}
	}
}

// splitJSON yields a file's documents, up to the first that is no JSON: nothing says where the next one begins.
func splitJSON(text []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		decoder := json.NewDecoder(bytes.NewReader(text))
		for {
			var document json.RawMessage
			err := decoder.Decode(&document)
			if errors.Is(err, io.EOF) || !yield(document, err) || err != nil {
				return
			}
		}
	}
}

// with returns c and what before has besides: a document that cannot be read any more is not taken for deleted.
func (c *content) with(before *content) *content {
	if before == nil {
		return c
	}
	return &content{
		subscriptions: besides(c.subscriptions, before.subscriptions),
		secrets:       besides(c.secrets, before.secrets),
		configMaps:    besides(c.configMaps, before.configMaps),
		namespaces:    besides(c.namespaces, before.namespaces),
		ignored:       c.ignored,
	}
}

// besides returns the objects of now, and those of before whose names are not among them.
func besides[T metav1.Object](now, before []T) []T {
	all := slices.Clone(now)
	for _, object := range before {
		if !slices.ContainsFunc(now, func(o T) bool { return o.GetNamespace() == object.GetNamespace() && o.GetName() == object.GetName() }) {
			all = append(all, object)
		}
	}
	return all
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
	case m.APIVersion == "v1" && m.Kind == "ConfigMap":
		return c.addConfigMap(document)
	case m.APIVersion == "v1" && m.Kind == "Namespace":
		return c.addNamespace(document)
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

func (c *content) addConfigMap(document []byte) error {
	configMap := &corev1.ConfigMap{}
	if err := decode(document, configMap); err != nil {
		return fmt.Errorf("decode ConfigMap: %w", err)
	}
	if len(validation.IsDNS1123Subdomain(configMap.Name)) > 0 {
		return errors.New("a ConfigMap's metadata.name must be set, to a lower-case DNS name")
	}
	if configMap.Namespace == "" {
		configMap.Namespace = defaultNamespace
	}
	c.configMaps = append(c.configMaps, configMap)
	return nil
}

// addNamespace takes up a Namespace for its uid: a tenant is one namespace, not all that ever had its name.
func (c *content) addNamespace(document []byte) error {
	namespace := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(document, namespace); err != nil {
		return fmt.Errorf("decode Namespace: %w", withoutValue(err))
	}
	if len(validation.IsDNS1123Label(namespace.Name)) > 0 {
		return errors.New("a Namespace's metadata.name must be set, to a DNS label")
	}
	c.namespaces = append(c.namespaces, namespace)
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
