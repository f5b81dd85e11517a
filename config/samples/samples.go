// Package samples holds the manifests of this folder and an event for each of them: for "eventflow demo" and "make run".
package samples

import "embed"

// manifests are the WebhookSubscriptions, the Secrets and what else kustomization.yaml lists.
//
//go:embed *.yaml
var manifests embed.FS

// events has one event for each subscription, as a producer publishes it.
//
//go:embed events/*.json
var events embed.FS
