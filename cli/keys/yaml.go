package keys

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// advice stands before a Secret that is printed.
const advice = `# A new key, which is in no cluster yet. It must not stand in Git as it is:
# - Sealed Secrets: kubeseal --format yaml, with the Secret below as its input, and commit what comes out.
# - External Secrets: put the value of stringData.key into your vault, and name it in an ExternalSecret whose target has this name.
# Each run makes another key.
`

// secretYAML is a Secret as people write one, with its value as text.
func secretYAML(s *corev1.Secret) (string, error) {
	values := map[string]string{}
	for name, value := range s.Data {
		values[name] = string(value)
	}
	return encode(map[string]any{
		"apiVersion": s.APIVersion, "kind": s.Kind, "type": s.Type, "stringData": values,
		"metadata": map[string]any{"name": s.Name, "namespace": s.Namespace, "labels": s.Labels, "annotations": s.Annotations},
	})
}

func encode(object any) (string, error) {
	text, err := yaml.Marshal(object)
	if err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	return string(text), nil
}
