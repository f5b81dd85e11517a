// Package config holds no code: it is the kustomizations that install Event Flow. Its tests apply them to a real API
// server.
package config
