// Release makes all that a version of Event Flow consists of, out of one commit: binaries, a container image for several
// architectures, SBOMs in SPDX, the rendered manifests, checksums, and a signature over them. It needs Go and git, and no
// container tool.
//
//	release -version=1.2.3 -output=DIR [-image=REPOSITORY] [-platforms=linux/amd64,…] [-key=FILE]
//	release -push=DIR -image=REPOSITORY
//
// The files depend on the commit, the version, the repository's name and the version of Go, and on nothing else: times are
// those of the commit, or SOURCE_DATE_EPOCH. Only the signature differs from one build to the next, because ECDSA is
// randomized.
package main
