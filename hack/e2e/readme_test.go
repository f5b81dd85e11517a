package e2e

import (
	"os"
	"path/filepath"
	"strings"
)

// readme runs the README's commands as they stand there, from the subscription to what became of it. make run and
// kubectl apply -k config/default have tests of their own.
func readme(c *cluster) {
	text, err := os.ReadFile(filepath.Join(c.root, "README.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	script := strings.Builder{}
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n")
	for _, block := range blocks(string(text), "sh") {
		switch block {
		case "make run\n", "kubectl apply -k config/default\n":
		default:
			script.WriteString(block)
		}
	}
	out := c.run(script.String(), "bash")
	if !strings.Contains(out, `"deliveries":1}`) {
		c.t.Errorf("the event caused no delivery:\n%s", out)
	}
	table := out[strings.LastIndex(out, "NAME "):]
	if fields := strings.Fields(table); !strings.Contains(table, "billing-sync") || !strings.Contains(strings.Join(fields, " "), "billing-sync True Ready ") {
		c.t.Errorf("kubectl get shows\n%s", table)
	}
}

// blocks returns the code blocks of a language.
func blocks(markdown, language string) []string {
	var found []string
	for _, part := range strings.Split(markdown, "\n```"+language+"\n")[1:] {
		code, _, _ := strings.Cut(part, "\n```")
		found = append(found, code+"\n")
	}
	return found
}
