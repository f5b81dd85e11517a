package e2e

import (
	"os"
	"path/filepath"
	"strings"
)

// provide makes the image available to the cluster as eventflowImage, and returns by which name it is installed: that of
// RELEASE by digest, or that which is built here.
func provide(c *cluster) (image string) {
	folder := os.Getenv("RELEASE")
	if folder == "" {
		c.load(eventflowImage, ".")
		return eventflowImage
	}
	content, err := os.ReadFile(one(c, folder, "eventflow_*_image.txt"))
	if err != nil {
		c.t.Fatal(err)
	}
	archive := one(c, folder, "eventflow_*_image.tar")
	byDigest := strings.TrimSpace(string(content))
	repository, _, _ := strings.Cut(byDigest, "@")
	version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(archive), "eventflow_"), "_image.tar")
	loader := strings.Fields(os.Getenv("LOAD_ARCHIVE"))
	c.run("", loader[0], append(loader[1:], archive, repository+":"+version, byDigest, "docker.io/library/"+eventflowImage)...)
	return byDigest
}

// manifests are those that install the image.
func manifests(c *cluster, image string) []string {
	if image == eventflowImage {
		return []string{"-k", "config/default"}
	}
	return []string{"-f", one(c, os.Getenv("RELEASE"), "eventflow_*_install.yaml")}
}

// one is the file of the release that a pattern names.
func one(c *cluster, folder, pattern string) string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(found) != 1 {
		c.t.Fatalf("RELEASE=%s has %v for %s (%v), want one file", folder, found, pattern, err)
	}
	return found[0]
}
