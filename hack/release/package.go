package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeChart writes the chart as helm package does, of this version, and with the image by digest.
func (r *release) writeChart(digest string) error {
	files, err := readFiles(filepath.Join(r.source, "charts", product))
	if err != nil {
		return err
	}
	const unset = "0.0.0-dev"
	edits := map[string][][2]string{
		"Chart.yaml": {
			{"\nversion: " + unset + " # make release sets both\n", "\nversion: " + r.version + "\n"},
			{"\nappVersion: " + unset + "\n", "\nappVersion: " + r.version + "\n"},
		},
		"values.yaml": {
			{"\n  repository: ghcr.io/clinikapi/eventflow\n", "\n  repository: " + r.image + "\n"},
			{"\n  digest: \"\"\n", "\n  digest: " + digest + "\n"},
		},
	}
	packed := []file{}
	for _, f := range files {
		for _, edit := range edits[f.name] {
			if strings.Count(string(f.content), edit[0]) != 1 {
				return fmt.Errorf("charts/%s/%s: want %q once", product, f.name, edit[0])
			}
			f.content = []byte(strings.Replace(string(f.content), edit[0], edit[1], 1))
		}
		if f.name == ".helmignore" || strings.HasSuffix(f.name, ".tmpl") {
			continue
		}
		packed = append(packed, file{product + "/" + f.name, f.mode, f.content})
	}
	var archive bytes.Buffer
	if err := writeTarGz(&archive, r.time, packed); err != nil {
		return err
	}
	return r.write(product+"-"+r.version+".tgz", archive.Bytes())
}

// writePlugin writes the manifest of the kubectl plugin, which krew installs, with the checksums of the archives.
func (r *release) writePlugin() error {
	text, err := os.ReadFile(filepath.Join(r.source, "hack", "release", "krew.yaml"))
	if err != nil {
		return err
	}
	manifest := strings.ReplaceAll(string(text), "VERSION", r.version)
	for _, p := range r.platforms {
		archive, err := os.ReadFile(filepath.Join(r.output, r.name(p.String()+".tar.gz")))
		if err != nil {
			return err
		}
		manifest += fmt.Sprintf(`  - selector: {matchLabels: {os: %s, arch: %s}}
    uri: %s/releases/download/v%s/%s
    sha256: %s
    bin: %s
`, p.system, p.architecture, home, r.version, r.name(p.String()+".tar.gz"), sum(archive), product)
	}
	return r.write("krew.yaml", []byte(manifest))
}
