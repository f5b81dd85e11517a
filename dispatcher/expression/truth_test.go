package expression

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/filters.md's table")

// truthData has a field for each kind of value, and none for absent.
const truthData = `{"none": null, "text": "a", "number": 5, "truth": true, "list": ["a", 5], "object": {"a": 5}}`

// truthKinds are the columns of the table: what stands for x.
var truthKinds = []string{"absent", "null", "text", "number", "truth", "list", "object"}

// truthTable is what every operator does with every kind of value: T true, F false, E an error. x stands for
// event.data.absent, event.data.text and so on; a field of null is event.data.none there.
var truthTable = []struct {
	expression string
	want       string // by kind
}{
	{"x == null", "TTFFFFF"},
	{"x != null", "FFTTTTT"},
	{"x == 'a'", "FFTFFFF"},
	{"x != 'a'", "TTFTTTT"},
	{"x == 5", "FFFTFFF"},
	{"x == 5.0", "FFFTFFF"},
	{"x == ['a', 5]", "FFFFFTF"},
	{"x == {'a': 5}", "FFFFFFT"},
	{"x == true", "FFFFTFF"},
	{"x > 4", "EEETEEE"},
	{"x < 4", "EEEFEEE"},
	{"x >= 5", "EEETEEE"},
	{"x <= 4", "EEEFEEE"},
	{"x > 'A'", "EETEEEE"},
	{"x in ['a', 'b']", "FFTFFFF"},
	{"!(x in ['a', 'b'])", "TTFTTTT"},
	{"x in [null, 'a']", "TTTFFFF"},
	{"x in {'a': 1}", "FFTFFFF"},
	{"'a' in x", "FFEEETT"},
	{"!x", "EEEEFEE"},
	{"x && true", "EEEETEE"},
	{"x && false", "FFFFFFF"},
	{"x || true", "TTTTTTT"},
	{"x || false", "EEEETEE"},
	{"x ? true : false", "EEEETEE"},
	{"x > 4 || x == null", "TTETEEE"},
	{"x != null && x > 4", "FFETEEE"},
	{"has(x)", "FTTTTTT"},
	{"has(x.a)", "FFFFFFT"},
	{"x.a == null", "TTEEEEF"},
	{"x.a.b == null", "TTEEEEE"},
	{"x['a'] == 5", "FFEEEET"},
	{"x[0] == 'a'", "FFEEETF"},
	{"x[9] == null", "TTEEETT"},
	{"x[-1] == null", "TTEEETT"},
	{"x.exists(i, i == 'a')", "EEEEETT"},
	{"x.all(i, i == 'a')", "EEEEEFT"},
	{"x.exists_one(i, i == 'a')", "EEEEETT"},
	{"x.filter(i, i == 'a') == ['a']", "EEEEETT"},
	{"x.map(i, i == 'a') == [true, false]", "EEEEETF"},
	{"x != null && x.exists(i, i == 'a')", "FFEEETT"},
	{"size(x) == 2", "EEFEETF"},
	{"x.startsWith('a')", "EETEEEE"},
	{"x.matches('^a$')", "EETEEEE"},
	{"x + 1 == 6", "EEETEEE"},
	{"x + 'b' == 'ab'", "EETEEEE"},
	{"-x == -5", "EEETEEE"},
	{"string(x) == '5'", "EEFTFEE"},
	{"timestamp(x) < timestamp('2026-01-01T00:00:00Z')", "EEETEEE"},
	{"event.data.?x.hasValue()", "FTTTTTT"},
	{"event.data.?x.orValue('a') == 'a'", "TFTFFFF"},
	{"type(x) == string", "FFTFFFF"},
	{"[1, 2].exists(i, x == 'a')", "FFTFFFF"},
	{"[1, 2].all(i, x > i)", "EEETEEE"},
	{"[{'v': x}].exists(i, i.v == null)", "TTFFFFF"},
	{"[{'v': 1}].exists(i, i.absent == x)", "TTFFFFF"},
}

// truthExpression puts a field for x.
func truthExpression(template, kind string) string {
	const field = "\x00"
	out := strings.ReplaceAll(template, "event.data.?x", "event.data.?"+field)
	for _, form := range []struct{ from, to string }{
		{"has(x", "has(event.data." + field}, {"(x ", "(event.data." + field + " "}, {"(x)", "(event.data." + field + ")"},
		{"in x", "in event.data." + field}, {": x}", ": event.data." + field + "}"}, {"== x)", "== event.data." + field + ")"},
		{" x > i", " event.data." + field + " > i"}, {", x ==", ", event.data." + field + " =="}, {"|| x ", "|| event.data." + field + " "},
		{"&& x ", "&& event.data." + field + " "}, {"&& x.", "&& event.data." + field + "."},
	} {
		out = strings.ReplaceAll(out, form.from, form.to)
	}
	switch {
	case strings.HasPrefix(out, "x"):
		out = "event.data." + field + out[1:]
	case strings.HasPrefix(out, "!x"), strings.HasPrefix(out, "-x"):
		out = out[:1] + "event.data." + field + out[2:]
	}
	if kind == "null" {
		kind = "none" // null is no name of a field
	}
	return strings.ReplaceAll(out, field, kind)
}

func filterVariables(data string) *Variables {
	return &Variables{
		Event:        NewEvent("evt_1", "appointment.created", time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC), []byte(data), nil),
		Subscription: NewSubscription("reminders", "clinic-a", map[string]string{"team": "front-desk"}),
	}
}

func mustCompile(t testing.TB, where Use, text string) *Program {
	t.Helper()
	program, err := Compile(where, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return program
}

// truth evaluates a filter to T, F or E.
func truth(t testing.TB, text, data string) (string, error) {
	t.Helper()
	got, err := mustCompile(t, Filter, text).Bool(filterVariables(data))
	switch {
	case err != nil:
		checkError(t, err)
		return "E", err
	case got:
		return "T", nil
	}
	return "F", nil
}

// TestTruthTable keeps the promise of docs/filters.md: what is absent or null never makes a filter fail where it is
// compared, and what cannot be decided is an error, never false.
func TestTruthTable(t *testing.T) {
	t.Parallel()
	for _, row := range truthTable {
		for i, kind := range truthKinds {
			text := truthExpression(row.expression, kind)
			if strings.Contains(text, "x ") || strings.HasSuffix(text, "x") {
				t.Fatalf("%s: an x is left in %s", row.expression, text)
			}
			if got, err := truth(t, text, truthData); got != row.want[i:i+1] {
				t.Errorf("%s: got %s (%v), want %c", text, got, err, row.want[i])
			}
		}
	}
}

const (
	filtersDoc = "../../docs/filters.md"
	tableBegin = "<!-- The table is written by go test ./dispatcher/expression -run TestFiltersDocument -update -->\n"
	tableEnd   = "<!-- The table ends here -->\n"
)

func truthMarkdown() string {
	var out strings.Builder
	out.WriteString("| expression | " + strings.Join(truthKinds, " | ") + " |\n|---" + strings.Repeat("|---", len(truthKinds)) + "|\n")
	words := map[byte]string{'T': "true", 'F': "false", 'E': "**error**"}
	for _, row := range truthTable {
		out.WriteString("| `" + strings.ReplaceAll(row.expression, "|", `\|`) + "`")
		for i := range truthKinds {
			out.WriteString(" | " + words[row.want[i]])
		}
		out.WriteString(" |\n")
	}
	return out.String()
}

// TestFiltersDocument: the table in docs/filters.md is the one that is tested.
func TestFiltersDocument(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(filtersDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(document), tableBegin)
	table, after, closed := strings.Cut(rest, tableEnd)
	if !ok || !closed {
		t.Fatal("docs/filters.md has no place for the table")
	}
	if *update {
		if err := os.WriteFile(filtersDoc, []byte(before+tableBegin+truthMarkdown()+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != truthMarkdown() {
		t.Error("the table is not current; run this test with -update")
	}
}

// TestFiltersDocumentExamples compiles every example of docs/filters.md.
func TestFiltersDocumentExamples(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(filtersDoc)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, block := range strings.Split(string(document), "```cel\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if _, err := Compile(Filter, text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		count++
	}
	if count < 12 {
		t.Errorf("there are %d examples", count)
	}
}
