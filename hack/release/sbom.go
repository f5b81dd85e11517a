package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// subject is what an SBOM is about.
type subject struct {
	name   string // a file, or an image by digest
	sha256 string // in hex
	image  bool
}

// writeSBOM writes an SPDX document (https://spdx.github.io/spdx-spec/v2.3/) of what is in the subject: the product, and
// every module that the linker took into its binary, read from the binary itself.
func (r *release) writeSBOM(name string, of subject, binary []byte) error {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return fmt.Errorf("read the modules of the binary: %w", err)
	}
	document := r.document(name, of)
	main := r.mainPackage(info.Main.Path)
	document.Packages = append(document.Packages, main)
	document.Relationships = append(document.Relationships, relationship("Package-subject", common.TypeRelationshipContains, string(main.PackageSPDXIdentifier)))
	modules := []module{{"stdlib", strings.TrimPrefix(info.GoVersion, "go")}}
	for _, dependency := range info.Deps {
		if dependency.Replace != nil {
			dependency = dependency.Replace
		}
		modules = append(modules, module{dependency.Path, dependency.Version})
	}
	for _, m := range modules {
		described := m.describe()
		document.Packages = append(document.Packages, described)
		document.Relationships = append(document.Relationships,
			relationship(string(main.PackageSPDXIdentifier), common.TypeRelationshipDependsOn, string(described.PackageSPDXIdentifier)))
	}
	var text bytes.Buffer
	if err := json.Write(document, &text, json.Indent("  ")); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return r.write(name, text.Bytes())
}

// document describes the subject, and nothing in it yet.
func (r *release) document(name string, of subject) *spdx.Document {
	described := &spdx.Package{
		PackageName:             of.name,
		PackageSPDXIdentifier:   "Package-subject",
		PackageVersion:          r.version,
		PackageSupplier:         &common.Supplier{SupplierType: "Organization", Supplier: "Event Flow"},
		PackageDownloadLocation: home + "/releases/download/v" + r.version + "/" + url.PathEscape(of.name),
		PackageChecksums:        []common.Checksum{{Algorithm: common.SHA256, Value: of.sha256}},
		PackageLicenseConcluded: license,
		PackageLicenseDeclared:  license,
		PackageCopyrightText:    "NOASSERTION",
		PrimaryPackagePurpose:   "ARCHIVE",
	}
	if of.image {
		described.PackageDownloadLocation, described.PrimaryPackagePurpose = "NOASSERTION", "CONTAINER"
		described.PackageExternalReferences = reference(fmt.Sprintf("pkg:oci/%s@sha256%%3A%s?repository_url=%s", product, of.sha256, url.QueryEscape(r.image)))
	}
	return &spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      name,
		DocumentNamespace: home + "/spdx/" + name + "-" + of.sha256,
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Organization", Creator: "Event Flow"}, {CreatorType: "Tool", Creator: "hack/release"}},
			Created:  r.time.Format(time.RFC3339),
		},
		Packages:      []*spdx.Package{described},
		Relationships: []*spdx.Relationship{relationship("DOCUMENT", common.TypeRelationshipDescribe, "Package-subject")},
	}
}

func (r *release) mainPackage(path string) *spdx.Package {
	return &spdx.Package{
		PackageName:               path,
		PackageSPDXIdentifier:     "Package-main",
		PackageVersion:            r.version,
		PackageDownloadLocation:   "git+" + home + "@" + r.commit,
		PackageLicenseConcluded:   license,
		PackageLicenseDeclared:    license,
		PackageCopyrightText:      "NOASSERTION",
		PackageExternalReferences: reference("pkg:golang/" + path + "@v" + r.version),
		PrimaryPackagePurpose:     "APPLICATION",
	}
}

// module is one that the binary was linked from.
type module struct{ path, version string }

// describe asserts no license: a binary does not name those of its modules.
func (m module) describe() *spdx.Package {
	return &spdx.Package{
		PackageName:               m.path,
		PackageSPDXIdentifier:     common.ElementID("Package-" + unfit.ReplaceAllString(m.path, "-") + "-" + unfit.ReplaceAllString(m.version, "-")),
		PackageVersion:            m.version,
		PackageDownloadLocation:   "NOASSERTION",
		PackageLicenseConcluded:   "NOASSERTION",
		PackageLicenseDeclared:    "NOASSERTION",
		PackageCopyrightText:      "NOASSERTION",
		PackageExternalReferences: reference("pkg:golang/" + strings.ToLower(m.path) + "@" + m.version),
		PrimaryPackagePurpose:     "LIBRARY",
	}
}

// unfit is what an identifier of SPDX may not have.
var unfit = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// reference is a package URL, by which scanners look up vulnerabilities (https://github.com/package-url/purl-spec).
func reference(purl string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}}
}

func relationship(from, kind, to string) *spdx.Relationship {
	return &spdx.Relationship{RefA: common.MakeDocElementID("", from), Relationship: kind, RefB: common.MakeDocElementID("", to)}
}
