// Chart keeps charts/eventflow in step with config/. "chart generate" copies the resource definitions, makes a template of
// every role, binding and policy, and writes the table of values; make generate calls it. "chart template" renders the chart
// as helm template does. Its tests render the chart and the kustomizations of config/ by the libraries of Helm and
// kustomize, and compare all objects.
package main
