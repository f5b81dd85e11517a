package main

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// sign writes FILE.sig, a signature as "cosign sign-blob" makes it with a key: ECDSA over SHA-256, DER in base64. The key is
// in PEM, as openssl or "cosign generate-key-pair" writes it.
func sign(path, key string) error {
	text, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) {
		return []byte(os.Getenv("EVENTFLOW_KEY_PASSWORD")), nil
	})
	if err != nil {
		return fmt.Errorf("read the key %s: %w", key, err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		return fmt.Errorf("use the key %s: %w", key, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	signed, err := signer.SignMessage(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("sign %s: %w", path, err)
	}
	return os.WriteFile(path+".sig", []byte(base64.StdEncoding.EncodeToString(signed)+"\n"), 0o644) //nolint:gosec // it is published
}
