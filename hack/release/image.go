package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeImage writes the image of the linux binaries as an OCI layout in a tar file, its name by digest, and an SBOM for
// each platform. It returns the digest of the index.
func (r *release) writeImage(binaries map[platform][]byte) (string, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range r.platforms {
		if p.system != "linux" {
			continue
		}
		image, err := r.imageOf(p, binaries[p])
		if err != nil {
			return "", err
		}
		digest, err := image.Digest()
		if err != nil {
			return "", err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: p.system, Architecture: p.architecture}},
		})
		of := subject{name: r.image + "@" + digest.String(), sha256: digest.Hex, image: true}
		if err := r.writeSBOM(r.name("image_"+p.String()+".spdx.json"), of, binaries[p]); err != nil {
			return "", err
		}
	}
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	if err := r.writeLayout(index); err != nil {
		return "", err
	}
	return digest.String(), r.write(r.name("image.txt"), []byte(r.image+"@"+digest.String()+"\n"))
}

// imageOf puts the binary on nothing. It carries its own root certificates and time zones. See Dockerfile, which makes the
// same image where there is a container tool.
func (r *release) imageOf(p platform, binary []byte) (v1.Image, error) {
	var content bytes.Buffer
	if err := writeTar(&content, r.time, []file{{product, 0o755, binary}}); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make the layer: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Author: product, Created: v1.Time{Time: r.time}, CreatedBy: home},
	})
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = p.system, p.architecture, v1.Time{Time: r.time}
	config.Config = v1.Config{User: "65532:65532", Entrypoint: []string{"/" + product}, Labels: r.annotations()}
	return mutate.ConfigFile(image, config)
}

// annotations are those of https://github.com/opencontainers/image-spec/blob/main/annotations.md.
func (r *release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       product,
		"org.opencontainers.image.description": summary,
		"org.opencontainers.image.url":         home,
		"org.opencontainers.image.source":      home,
		"org.opencontainers.image.licenses":    license,
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.commit,
		"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
	}
}

// writeLayout writes the layout. Its index names the image as containerd and podman expect it of a file to import.
func (r *release) writeLayout(index v1.ImageIndex) error {
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path, err := layout.Write(folder, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	names := layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          r.image + ":" + r.version,
		"org.opencontainers.image.ref.name": r.version,
	})
	if err := path.AppendIndex(index, names); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	files, err := readFiles(folder)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := writeTar(&archive, r.time, files); err != nil {
		return err
	}
	return r.write(r.name("image.tar"), archive.Bytes())
}

// openLayout unpacks the one image of a release into folder, and returns its index and version.
func openLayout(output, folder string) (v1.ImageIndex, string, error) {
	found, err := filepath.Glob(filepath.Join(output, product+"_*_image.tar"))
	if err != nil || len(found) != 1 {
		return nil, "", errors.Join(err, fmt.Errorf("%s holds %d images, want 1", output, len(found)))
	}
	if err := unpack(found[0], folder); err != nil {
		return nil, "", fmt.Errorf("unpack %s: %w", found[0], err)
	}
	outer, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return nil, "", err
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		return nil, "", err
	}
	if len(manifest.Manifests) != 1 {
		return nil, "", fmt.Errorf("%s: want one index", found[0])
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	return index, manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"], err
}

// unpack writes the files of a tar file below folder, and none elsewhere.
func unpack(archive, folder string) error {
	content, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for reader := tar.NewReader(content); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(header.Name), 0o755); err != nil {
			return err
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			return err
		}
		if err := root.WriteFile(header.Name, text, 0o644); err != nil {
			return err
		}
	}
}

// pushImage pushes what a release holds, as it is, so that the digest stays. The credentials are those of docker login.
func pushImage(ctx context.Context, output, repository string) error {
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	index, version, err := openLayout(output, folder)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(repository + ":" + version)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}
