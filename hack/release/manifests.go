package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// writeManifests writes config/default as kubectl apply takes it, with the image by digest.
func (r *release) writeManifests(digest string) error {
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return err
	}
	source, err := filepath.EvalSymlinks(r.source)
	if err != nil {
		return err
	}
	base, err := filepath.Rel(folder, filepath.Join(source, "config", "default"))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("resources: [%q]\nimages: [{name: %s, newName: %q, digest: %q}]\n", base, product, r.image, digest)
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return fmt.Errorf("render config/default: %w", err)
	}
	manifests, err := resources.AsYaml()
	if err != nil {
		return err
	}
	return r.write(r.name("install.yaml"), manifests)
}
