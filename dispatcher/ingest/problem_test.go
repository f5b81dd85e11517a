package ingest

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestProblemsAreExplained compares the kinds of problems with the headings that their types lead to.
func TestProblemsAreExplained(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	if headings := strings.Count(string(text), "\n## "); headings != len(kinds) {
		t.Errorf("%d headings for %d kinds of problems", headings, len(kinds))
	}
	for _, k := range kinds {
		if want := fmt.Sprintf("\n## %s\n%d. ", k.name, k.status); !strings.Contains(string(text), want) {
			t.Errorf("docs/problems.md lacks %q", want)
		}
	}
}

func TestProblemWrite(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	newProblem(overloaded, "key %s", quoted("a\nb\"é"+strings.Repeat("x", 100))).retry(1500 * time.Millisecond).at(3).write(w)
	got := wantProblem(t, w, overloaded)
	want := `event at index 3: key "a\nb\"\u00e9` + strings.Repeat("x", 58) + `"…`
	if got.Detail != want || *got.Index != 3 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("got %+v, headers %v", got, w.Header())
	}
}

func TestAsProblem(t *testing.T) {
	t.Parallel()
	p := newProblem(tooLarge, "too large")
	if got := asProblem(fmt.Errorf("read: %w", p)); got != p {
		t.Errorf("got %+v", got)
	}
	if got := asProblem(errors.New("secret")); got.kind != unavailable || strings.Contains(got.detail, "secret") || got.retryAfter == 0 {
		t.Errorf("got %+v", got)
	}
}
