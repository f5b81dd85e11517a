// Package argocd has health checks and actions for Argo CD, in the layout of its repository: resource_customizations is its
// folder of the same name. argocd-cm.yaml has them for an Argo CD that has not taken them over.
package argocd
