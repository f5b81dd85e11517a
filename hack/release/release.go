package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platform is what a binary runs on, in Go's words.
type platform struct{ system, architecture string }

func (p platform) String() string { return p.system + "_" + p.architecture }

// release is one version in the making.
type release struct {
	version   string    // 1.2.3
	image     string    // the repository, without tag
	source    string    // the checkout
	output    string    // where the files go
	commit    string    // in full
	time      time.Time // of all that has one
	platforms []platform
}

// versions are those of https://semver.org without build metadata, which a tag of an image may not have.
var versions = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// newRelease looks up the commit. It refuses a version that is none, and a checkout with changes.
func newRelease(ctx context.Context, source, version, image, output string) (*release, error) {
	if !versions.MatchString(version) {
		return nil, fmt.Errorf("version %q: want one like 1.2.3 or 1.2.3-rc.1", version)
	}
	r := &release{version: version, image: image}
	var err error
	if r.source, err = filepath.Abs(source); err != nil {
		return nil, err
	}
	if r.output, err = filepath.Abs(output); err != nil {
		return nil, err
	}
	changes, err := r.command(ctx, nil, "git", "status", "--porcelain")
	if err != nil {
		return nil, err
	}
	if changes != "" {
		return nil, fmt.Errorf("the checkout has changes, a release is made of a commit:\n%s", changes)
	}
	if r.commit, err = r.command(ctx, nil, "git", "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		if seconds, err = r.command(ctx, nil, "git", "log", "-1", "--format=%ct"); err != nil {
			return nil, err
		}
	}
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	r.time = time.Unix(epoch, 0).UTC()
	return r, nil
}

// make writes every file but the signature.
func (r *release) make(ctx context.Context) error {
	if err := r.empty(); err != nil {
		return err
	}
	binaries := map[platform][]byte{}
	for _, p := range r.platforms {
		binary, err := r.build(ctx, p)
		if err != nil {
			return err
		}
		binaries[p] = binary
		if err := r.packBinary(p, binary); err != nil {
			return err
		}
	}
	digest, err := r.writeImage(binaries)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return r.writeManifests(digest) },
		func() error { return r.writeChart(digest) },
		r.writePlugin,
		func() error { return r.writeMan(ctx, binaries) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return r.writeChecksums()
}

// empty makes the folder, or empties one that an earlier release is in. It touches no other.
func (r *release) empty() error {
	entries, err := os.ReadDir(r.output)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(r.output, checksums)); err != nil {
			return fmt.Errorf("-output=%s holds something else than a release", r.output)
		}
		if err := os.RemoveAll(r.output); err != nil {
			return err
		}
	}
	return os.MkdirAll(r.output, 0o755) //nolint:gosec // all of it is published
}

// build returns the binary, which holds no path, no time and no state of the checkout.
func (r *release) build(ctx context.Context, p platform) ([]byte, error) {
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binary := filepath.Join(folder, product)
	env := []string{"CGO_ENABLED=0", "GOOS=" + p.system, "GOARCH=" + p.architecture, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off"}
	if _, err := r.command(ctx, env, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X main.version="+r.version, "-o", binary, "."); err != nil {
		return nil, err
	}
	return os.ReadFile(binary)
}

// packBinary writes the archive that people download, and its SBOM.
func (r *release) packBinary(p platform, binary []byte) error {
	licenseText, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := writeTarGz(&archive, r.time, []file{{"LICENSE", 0o644, licenseText}, {product, 0o755, binary}}); err != nil {
		return err
	}
	name := r.name(p.String() + ".tar.gz")
	if err := r.write(name, archive.Bytes()); err != nil {
		return err
	}
	return r.writeSBOM(r.name(p.String()+".spdx.json"), subject{name: name, sha256: sum(archive.Bytes())}, binary)
}

// writeChecksums writes what sha256sum --check reads.
func (r *release) writeChecksums() error {
	entries, err := os.ReadDir(r.output)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, entry := range entries { // by name
		content, err := os.ReadFile(filepath.Join(r.output, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s  %s\n", sum(content), entry.Name())
	}
	return r.write(checksums, []byte(lines.String()))
}

// name is that of a file: eventflow_1.2.3_rest.
func (r *release) name(rest string) string { return product + "_" + r.version + "_" + rest }

func (r *release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.output, name), content, 0o644) //nolint:gosec // all of it is published
}

// command runs in the checkout and returns what was written to stdout, trimmed.
func (r *release) command(ctx context.Context, env []string, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = r.source, append(slices.Clone(os.Environ()), env...)
	output, err := c.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(string(output)), nil
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}
