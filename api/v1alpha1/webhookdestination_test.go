package v1alpha1_test

var destinationRules = map[string]rule{
	"spec is required": {
		good: []string{"spec: {}"},
		bad:  map[string]string{"spec: null": "spec: Required value"},
	},
	"hosts": hostRules("spec.hosts", "spec: {hosts: %s}", map[string]string{"spec: {hosts: null}": "spec.hosts: Required value"}),
	"namespaces": {
		good: []string{"spec: {namespaceSelector: {matchLabels: {tier: gold}}}"},
		bad: map[string]string{
			"spec: {namespaceSelector: null}":                                     "spec.namespaceSelector: Required value",
			"spec: {namespaceSelector: {matchExpressions: [{operator: Exists}]}}": "spec.namespaceSelector.matchExpressions[0].key: Required value",
			"spec: {namespaceSelector: {matchExpressions: [{key: tier}]}}":        "spec.namespaceSelector.matchExpressions[0].operator: Required value",
		},
	},
}
