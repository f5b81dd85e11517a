package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// dispatcherAPI is what the chart asks for before it renders a WebhookDispatcher.
const dispatcherAPI = "webhooks.clinikapi.com/v1alpha1/WebhookDispatcher"

// render returns what helm template would, the values checked by their schema. known is a cluster that has the resource
// definitions.
func render(folder, namespace string, known bool, values map[string]any) (string, error) {
	loaded, err := loader.Load(folder)
	if err != nil {
		return "", fmt.Errorf("load %s: %w", folder, err)
	}
	capabilities := *chartutil.DefaultCapabilities
	if known {
		capabilities.APIVersions = append(slices.Clone(capabilities.APIVersions), dispatcherAPI)
	}
	return renderChart(loaded, namespace, &capabilities, values)
}

func renderChart(loaded *chart.Chart, namespace string, capabilities *chartutil.Capabilities, values map[string]any) (string, error) {
	options := chartutil.ReleaseOptions{Name: "eventflow", Namespace: namespace, Revision: 1, IsInstall: true}
	given, err := chartutil.ToRenderValues(loaded, values, options, capabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(loaded, given)
	if err != nil {
		return "", fmt.Errorf("render %s: %w", loaded.Name(), err)
	}
	var manifests strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) == ".yaml" && strings.TrimSpace(files[name]) != "" {
			fmt.Fprintf(&manifests, "---\n# Source: %s\n%s\n", name, files[name])
		}
	}
	return manifests.String(), nil
}

// kustomize builds a folder.
func kustomize(folder string) (string, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", folder, err)
	}
	text, err := resources.AsYaml()
	return string(text), err
}
