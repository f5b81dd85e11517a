package dispatcher

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clusterConfig finds the cluster: that of the kubeconfig file, else of $KUBECONFIG, else the one that the pod runs in.
func (d *dispatcher) clusterConfig() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = d.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster (--routes=kubernetes and --ingest-auth=kubernetes need one; see --kubeconfig): %w", err)
	}
	config.QPS, config.Burst = 200, 400 // for reviews of tokens, whose answers are kept for a while, and for a whole table at once
	config.Dial = d.Around.DialCluster
	return config, nil
}
