package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

// verify returns nil if the delivery was signed with secret, less than five minutes ago.
func verify(r *http.Request, body []byte, secret string) error {
	key, err := signature.ParseKey([]byte(secret)) // github.com/clinikapi/eventflow/api/signature
	if err != nil {
		return err
	}
	return signature.Keys{key}.VerifyStandard(r.Header, body, time.Now(), signature.Tolerance)
}

// The Standard Webhooks known answer, from its specification's test vectors.
var knownAnswer = sample{
	Headers: map[string]string{
		"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
		"webhook-signature":     "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"x-clinikapi-signature": "",
	},
	Body: `{"test": 2432232314}`,
	Now:  1614265330,
}

// sample is a delivery as an example gets it. Now is the time it is told, in Unix seconds; 0 for the real one.
type sample struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Secret  string            `json:"secret"`
	Now     int64             `json:"now"`
}

// TestReadmeExamples runs the README's examples on what a dispatcher process really sent.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	e := newEndpoint(t)
	p := newPlane(t, e.URL)
	p.publish("evt-readme")
	eventually(t, "a delivery", func() bool { return len(e.received()) > 0 })
	a := e.received()[0]
	sent := sample{Headers: map[string]string{}, Body: string(a.body), Secret: signingKey}
	for name := range a.header {
		sent.Headers[strings.ToLower(name)] = a.header.Get(name)
	}
	known := knownAnswer
	known.Secret = signingKey
	unpadded := signedUnpadded(t)

	t.Run("Go", func(t *testing.T) {
		t.Parallel()
		testGoExample(t, codeBlock(t, string(text), "go"), a)
	})
	for name, tc := range map[string]struct {
		language, program, harness string
		samples                    []sample
	}{
		"Node":   {"js", "node", nodeHarness, []sample{sent, known, unpadded}},
		"Python": {"python", "python3", pythonHarness, []sample{sent, known, unpadded}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireTool(t, tc.program)
			dir := t.TempDir()
			file := filepath.Join(dir, "example.mjs")
			if tc.language == "js" {
				installPackage(t, dir)
			}
			if err := os.WriteFile(file, []byte(codeBlock(t, string(text), tc.language)+tc.harness), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, s := range tc.samples {
				runExample(t, tc.program, file, s)
			}
		})
	}
}

// signedUnpadded is a delivery that was signed with a key without padding, which Standard Webhooks allows.
func signedUnpadded(t *testing.T) sample {
	t.Helper()
	const secret = "whsec_dGhlIGtleSBoYXMgMjUgYnl0ZXMgaGVyZQ" // 25 bytes
	key, err := signature.ParseKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	body, header := "{}", http.Header{}
	signature.Keys{key}.Header(header, "dlv_1", time.Unix(knownAnswer.Now, 0), []byte(body))
	s := sample{Headers: map[string]string{}, Body: body, Secret: secret, Now: knownAnswer.Now}
	for name, values := range header {
		s.Headers[strings.ToLower(name)] = values[0]
	}
	return s
}

// testGoExample asserts that the example is the function above, and that the function works.
func testGoExample(t *testing.T, block string, a attempt) {
	t.Helper()
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(source), block) {
		t.Errorf("the README's Go example is not the function verify of this file:\n%s", block)
	}
	request := &http.Request{Header: a.header}
	if err := verify(request, a.body, signingKey); err != nil {
		t.Errorf("a good delivery: %v", err)
	}
	if verify(request, append([]byte(" "), a.body...), signingKey) == nil {
		t.Error("a changed body was taken")
	}
	if verify(request, a.body, "another key, of thirty bytes!!") == nil {
		t.Error("another key's signature was taken")
	}
}

// nodeHarness reads a sample from stdin, and exits 0 if the example takes it and refuses what was changed.
const nodeHarness = `
import { readFileSync } from "node:fs";
const sample = JSON.parse(readFileSync(0, "utf8"));
const RealDate = Date;
if (sample.now) globalThis.Date = class extends RealDate { constructor(...a) { super(...(a.length ? a : [sample.now * 1000])); } static now() { return sample.now * 1000; } };
const refuses = (f) => { try { return f() === false; } catch { return true; } };
const event = verify(sample.headers, sample.body, sample.secret);
if (JSON.stringify(event) !== JSON.stringify(JSON.parse(sample.body))) throw new Error("another event");
if (!refuses(() => verify(sample.headers, sample.body + " ", sample.secret))) throw new Error("took a changed body");
if (!refuses(() => verify(sample.headers, sample.body, "whsec_YW5vdGhlciBrZXksIG9mIHRoaXJ0eSBieXRlcyEh"))) throw new Error("took another key's signature");
if (sample.headers["x-clinikapi-signature"]) {
  if (!verifyBody(sample.headers, sample.body, sample.secret)) throw new Error("refused the body's signature");
  if (!refuses(() => verifyBody(sample.headers, sample.body + " ", sample.secret))) throw new Error("took a changed body");
}
if (!refuses(() => verifyBody({}, sample.body, sample.secret))) throw new Error("took a body without a signature");
`

// pythonHarness is nodeHarness in Python.
const pythonHarness = `
import json, sys
sample = json.load(sys.stdin)
headers, body, secret = sample["headers"], sample["body"].encode(), sample["secret"]
if sample["now"]:
    time.time = lambda: sample["now"]
assert verify(headers, body, secret), "refused a good delivery"
assert not verify(headers, body + b" ", secret), "took a changed body"
assert not verify(headers, body, "another key, of thirty bytes!!"), "took another key's signature"
now = int(headers["webhook-timestamp"])
time.time = lambda: now + 301
assert not verify(headers, body, secret), "took an old delivery"
`

// runExample runs an example on a sample.
func runExample(t *testing.T, program, file string, s sample) {
	t.Helper()
	input, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, file)
	cmd.Stdin = strings.NewReader(string(input))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s on %s: %v\n%s", program, s.Body, err, out)
	}
}

// installPackage installs the standardwebhooks package, an implementation that is independent of this one.
func installPackage(t *testing.T, dir string) {
	t.Helper()
	requireTool(t, "npm")
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		text, err := os.ReadFile(filepath.Join("hack", "standardwebhooks", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// requireTool skips the test where a program is missing; in CI it must be there.
func requireTool(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing", program)
	}
	t.Skipf("%s is missing", program)
}

// codeBlock returns the one code block of a language.
func codeBlock(t *testing.T, markdown, language string) string {
	t.Helper()
	parts := strings.Split(markdown, "\n```"+language+"\n")
	if len(parts) != 2 {
		t.Fatalf("%d blocks of %s, want one", len(parts)-1, language)
	}
	code, _, _ := strings.Cut(parts[1], "\n```")
	return code + "\n"
}
