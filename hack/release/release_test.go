package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

const testVersion = "9.8.7"

// TestRelease makes a release of HEAD and looks at it as a user would. RELEASE_PLATFORMS names the platforms, linux on this
// architecture if left out. With RELEASE_FRESH=1 the second build compiles all anew. RELEASE_CANDIDATE is a folder that keeps
// the first one; if it is there already, it is looked at as it is.
func TestRelease(t *testing.T) {
	commit := strings.TrimSpace(tool(t, "../..", "git", "rev-parse", "HEAD"))
	first := os.Getenv("RELEASE_CANDIDATE")
	if _, err := os.Stat(filepath.Join(first, checksums)); first == "" || err != nil {
		first = makeRelease(t, commit, first)
	}
	t.Run("twice", func(t *testing.T) { testTwice(t, commit, first) })
	t.Run("checksums", func(t *testing.T) { testChecksums(t, first) })
	t.Run("signature", func(t *testing.T) { testSignature(t, first) })
	t.Run("binary", func(t *testing.T) { testBinary(t, first) })
	t.Run("image", func(t *testing.T) { testImage(t, first) })
	t.Run("sbom", func(t *testing.T) { testSBOM(t, first) })
	t.Run("manifests", func(t *testing.T) { testManifests(t, first) })
	t.Run("chart", func(t *testing.T) { testChart(t, first) })
	t.Run("plugin", func(t *testing.T) { testPlugin(t, first) })
	t.Run("man pages", func(t *testing.T) { testMan(t, first) })
}

// makeRelease takes the files of a commit into a repository of its own, so that nothing of the checkout's state or path can get
// into the release. A clone would do, but git does not make one of a checkout that belongs to another user.
func makeRelease(t *testing.T, commit, output string) string {
	t.Helper()
	clone, archive := t.TempDir(), filepath.Join(t.TempDir(), "head.tar")
	tool(t, "../..", "git", "archive", "--output="+archive, commit)
	tool(t, clone, "tar", "-xf", archive)
	tool(t, clone, "git", "init", "--quiet")
	tool(t, clone, "git", "add", "--all", "--force")
	tool(t, clone, "env", "GIT_AUTHOR_DATE=2001-02-03T04:05:06Z", "GIT_COMMITTER_DATE=2001-02-03T04:05:06Z",
		"git", "-c", "user.name=release", "-c", "user.email=release@example.com", "-c", "commit.gpgSign=false", "commit", "--quiet", "--message="+commit)
	if output == "" {
		output = filepath.Join(t.TempDir(), "out")
	}
	platforms := os.Getenv("RELEASE_PLATFORMS")
	if platforms == "" {
		platforms = "linux/" + runtime.GOARCH
	}
	args := []string{"-source=" + clone, "-version=" + testVersion, "-output=" + output, "-image=registry.example.com/eventflow", "-platforms=" + platforms}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	return output
}

func testTwice(t *testing.T, commit, first string) {
	if os.Getenv("RELEASE_FRESH") != "" {
		t.Setenv("GOCACHE", t.TempDir())
	}
	second := makeRelease(t, commit, "")
	want := names(t, first)
	if got := namesOf(t, second); !slices.Equal(got, want) {
		t.Fatalf("the second build has %v, the first %v", got, want)
	}
	for _, name := range want {
		if !bytes.Equal(read(t, first, name), read(t, second, name)) {
			t.Errorf("%s differs between two builds of one commit", name)
		}
	}
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	found := namesOf(t, folder)
	if len(found) < 6 {
		t.Fatalf("the release has %v only", found)
	}
	return found
}

func namesOf(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".sig") {
			found = append(found, entry.Name())
		}
	}
	return found
}

func testChecksums(t *testing.T, output string) {
	tool(t, output, "sha256sum", "--check", "--strict", "--quiet", checksums)
	text := string(read(t, output, checksums))
	for _, name := range names(t, output) {
		if name != checksums && !strings.Contains(text, "  "+name+"\n") {
			t.Errorf("%s names no checksum of %s", checksums, name)
		}
	}
}

// testSignature lets openssl verify what sign wrote.
func testSignature(t *testing.T, output string) {
	folder := t.TempDir()
	key, public, signature := filepath.Join(folder, "key"), filepath.Join(folder, "public"), filepath.Join(folder, "signature")
	tool(t, "", "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
	tool(t, "", "openssl", "pkey", "-in", key, "-pubout", "-out", public)
	signed := filepath.Join(folder, checksums)
	write(t, signed, read(t, output, checksums))
	if err := sign(signed, key); err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(read(t, folder, checksums+".sig"))))
	if err != nil {
		t.Fatal(err)
	}
	write(t, signature, der)
	verify := []string{"openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, signed}
	tool(t, "", verify...)
	write(t, signed, append(read(t, folder, checksums), "0  more\n"...))
	if output, err := exec.CommandContext(t.Context(), verify[0], verify[1:]...).CombinedOutput(); err == nil {
		t.Errorf("openssl verifies what was changed after it was signed: %s", output)
	}
}

func testBinary(t *testing.T, output string) {
	found, err := filepath.Glob(filepath.Join(output, "*_"+runtime.GOOS+"_"+runtime.GOARCH+".tar.gz"))
	if err != nil || len(found) != 1 {
		t.Skipf("no archive for this machine among %v (%v)", found, err)
	}
	archive := read(t, "", found[0])
	compressed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	folder, files := t.TempDir(), []string{}
	for reader := tar.NewReader(compressed); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, header.Name)
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(header.Name)), content, header.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"LICENSE", product}; !slices.Equal(files, want) {
		t.Errorf("the archive has %v, want %v", files, want)
	}
	if got, want := tool(t, folder, "./"+product, "--version"), "eventflow "+testVersion+"\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

// testImage pushes the image into a registry and pulls it by the digest that the release names.
func testImage(t *testing.T, output string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/eventflow"
	if err := run(t.Context(), []string{"-push=" + output, "-image=" + repository}); err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(strings.TrimSpace(string(read(t, output, product+"_"+testVersion+"_image.txt"))), "@")
	for _, named := range []string{repository + ":" + testVersion, repository + "@" + digest} {
		reference, err := name.ParseReference(named)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(reference)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := index.Digest(); err != nil || got.String() != digest {
			t.Errorf("%s has digest %s, want %s (%v)", named, got, digest, err)
		}
		if err := validate.Index(index); err != nil {
			t.Error(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range manifest.Manifests {
			image, err := index.Image(entry.Digest)
			if err != nil {
				t.Fatal(err)
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if config.OS != entry.Platform.OS || config.Architecture != entry.Platform.Architecture || config.Config.User != "65532:65532" {
				t.Errorf("the image of %v is for %s/%s, user %s", entry.Platform, config.OS, config.Architecture, config.Config.User)
			}
		}
	}
}

// testSBOM compares each SBOM with what "go version -m" reads in the binary of this machine.
func testSBOM(t *testing.T, output string) {
	folder := t.TempDir()
	tool(t, folder, "tar", "-xzf", filepath.Join(output, product+"_"+testVersion+"_linux_"+runtime.GOARCH+".tar.gz"))
	want := []string{}
	for line := range strings.Lines(tool(t, folder, "go", "version", "-m", product)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "dep" {
			want = append(want, fields[1]+" "+fields[2])
		}
	}
	if len(want) < 30 {
		t.Fatalf("go version names %d modules", len(want))
	}
	for _, about := range []string{"linux_", "image_linux_"} {
		var document struct {
			SPDXVersion string
			Packages    []struct{ Name, VersionInfo, SPDXID string }
		}
		if err := json.Unmarshal(read(t, output, product+"_"+testVersion+"_"+about+runtime.GOARCH+".spdx.json"), &document); err != nil {
			t.Fatal(err)
		}
		got, ids := []string{}, map[string]bool{}
		for _, p := range document.Packages {
			if ids[p.SPDXID] {
				t.Errorf("%s: the identifier %s is there twice", about, p.SPDXID)
			}
			ids[p.SPDXID] = true
			if strings.Contains(p.SPDXID, "Package-subject") || strings.HasSuffix(p.SPDXID, "-Package-main") || p.Name == "stdlib" {
				continue
			}
			got = append(got, p.Name+" "+p.VersionInfo)
		}
		slices.Sort(got)
		slices.Sort(want)
		if document.SPDXVersion != "SPDX-2.3" || !slices.Equal(got, want) {
			t.Errorf("%s: the document of %s has\n%v, want\n%v", about, document.SPDXVersion, got, want)
		}
	}
}

// testManifests: every image is by digest.
func testManifests(t *testing.T, output string) {
	text := read(t, output, product+"_"+testVersion+"_install.yaml")
	image := strings.TrimSpace(string(read(t, output, product+"_"+testVersion+"_image.txt")))
	images := regexp.MustCompile(`(?m)^ +(?:- )?image: (.*)$`).FindAllSubmatch(text, -1)
	if len(images) != 1 || string(images[0][1]) != image {
		t.Errorf("the manifests have %q, want the image %s", images, image)
	}
}

// testChart lets Helm load and render the chart.
func testChart(t *testing.T, output string) {
	loaded, err := loader.Load(filepath.Join(output, product+"-"+testVersion+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Metadata.Version != testVersion || loaded.Metadata.AppVersion != testVersion {
		t.Errorf("the chart is version %s of %s", loaded.Metadata.Version, loaded.Metadata.AppVersion)
	}
	values, err := chartutil.ToRenderValues(loaded, nil, chartutil.ReleaseOptions{Name: product, Namespace: "hooks"}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(loaded, values)
	if err != nil {
		t.Fatal(err)
	}
	image := strings.TrimSpace(string(read(t, output, product+"_"+testVersion+"_image.txt")))
	if !strings.Contains(files[product+"/templates/deployment.yaml"], "image: "+image+"\n") {
		t.Errorf("the chart does not run %s", image)
	}
	if !strings.Contains(files[product+"/templates/crds.yaml"], "kind: CustomResourceDefinition") {
		t.Error("the chart has no resource definitions")
	}
}

// testPlugin: krew finds what it downloads, with the checksum that it has.
func testPlugin(t *testing.T, output string) {
	var plugin struct {
		Spec struct {
			Version   string
			Platforms []struct{ URI, SHA256, Bin string }
		}
	}
	if err := yaml.Unmarshal(read(t, output, "krew.yaml"), &plugin); err != nil {
		t.Fatal(err)
	}
	archives, err := filepath.Glob(filepath.Join(output, "*_amd64.tar.gz"))
	if err != nil || len(archives) == 0 || plugin.Spec.Version != "v"+testVersion || len(plugin.Spec.Platforms) < len(archives) {
		t.Fatalf("%d archives (%v) and %+v", len(archives), err, plugin)
	}
	for _, p := range plugin.Spec.Platforms {
		if base := p.URI[strings.LastIndex(p.URI, "/")+1:]; sum(read(t, output, base)) != p.SHA256 || p.Bin != product {
			t.Errorf("%+v is not what the release has", p)
		}
	}
}

// testMan lets man's own formatter read the pages, where it is installed.
func testMan(t *testing.T, output string) {
	folder := t.TempDir()
	tool(t, folder, "tar", "-xzf", filepath.Join(output, product+"_"+testVersion+"_man.tar.gz"))
	for name, want := range map[string]string{
		"man/eventflow.1": "EVENTFLOW", "man/eventflow-dispatcher.1": "store", "man/eventflow-completion-kubectl.1": "kubectl",
		"completion/eventflow.bash": "eventflow", "completion/_eventflow": "#compdef", "completion/eventflow.fish": "eventflow",
		"completion/kubectl_complete-eventflow": "__complete",
	} {
		if text := string(read(t, folder, name)); !strings.Contains(text, want) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	if _, err := exec.LookPath("man"); err == nil {
		if warnings := tool(t, folder, "sh", "-c", "man --warnings -l man/eventflow-dispatcher.1 2>&1 >/dev/null"); warnings != "" {
			t.Error(warnings)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	checkout := t.TempDir()
	tool(t, checkout, "git", "init", "--quiet")
	write(t, filepath.Join(checkout, "new"), nil)
	foreign := t.TempDir()
	write(t, filepath.Join(foreign, "letters"), nil)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no version":    {[]string{"-version=v1.2.3", "-output=x"}, `version "v1.2.3": want one like`},
		"no output":     {[]string{"-version=1.2.3"}, "-output is not set"},
		"changed files": {[]string{"-version=1.2.3", "-output=x", "-source=" + checkout}, "the checkout has changes"},
		"no image":      {[]string{"-push=" + foreign}, "holds 0 images"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(t.Context(), tt.args); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if err := (&release{output: foreign}).empty(); err == nil {
		t.Error("a folder of somebody else is emptied")
	}
}

// tool runs a command that must succeed, and returns what it wrote to stdout.
func tool(t *testing.T, folder string, command ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	c.Dir, c.Stdout, c.Stderr = folder, &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

func read(t *testing.T, folder, base string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, base))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
