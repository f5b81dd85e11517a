package expression

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/expr/conformance/test"
	"google.golang.org/protobuf/encoding/prototext"

	// The tests name these messages.
	_ "cel.dev/expr/conformance/proto2"
	_ "cel.dev/expr/conformance/proto3"
)

// conformanceFiles are CEL's own tests for the libraries that are on. The other files of the suite test protocol buffers
// (dynamic, enums, proto2, proto2_ext, proto3, wrappers, type_deduction), partial evaluation (unknowns) and an
// internal macro (block_ext): an event has none of them.
var conformanceFiles = []string{
	"basic", "bindings_ext", "comparisons", "conversions", "encoders_ext", "fields", "fp_math", "integer_math", "lists", "logic",
	"macros", "macros2", "math_ext", "namespace", "optionals", "parse", "plumbing", "string", "string_ext", "timestamps",
}

const (
	nullSemantics = "what is absent reads as null here, and is no error"
	lenientHas    = "what has no fields has not this one; cel-go does so as well unless it is told otherwise"
	ofCELGo       = "cel-go does not conform"
	noProtobuf    = "there are no protocol buffer messages here"
	checked       = "expressions are always checked, and have the macros"
)

// conformanceSkips names the tests that do not hold, by file/section/name, with the reason. skipped has the rules for the others.
var conformanceSkips = map[string]string{
	"fields/map_fields/map_key_mixed_numbers_lossy_double_key":                  nullSemantics,
	"fields/map_fields/map_no_such_key":                                         nullSemantics,
	"fields/map_fields/map_field_select_no_such_key":                            nullSemantics,
	"lists/index/index_out_of_bounds":                                           nullSemantics,
	"optionals/optionals/map_null_entry_no_such_key":                            nullSemantics,
	"optionals/optionals/optional_chaining_10":                                  nullSemantics,
	"optionals/optionals/map_present_key_invalid_field":                         lenientHas,
	"fields/qualified_identifier_resolution/map_value_repeat_key":               ofCELGo + ": the last of duplicate keys counts",
	"fields/qualified_identifier_resolution/map_value_repeat_key_heterogeneous": ofCELGo + ": the last of duplicate keys counts",
	"string_ext/value_errors/indexof_out_of_range":                              ofCELGo + ": it is -1",
	"string_ext/value_errors/lastindexof_out_of_range":                          ofCELGo + ": it is -1",
}

// TestConformance runs CEL's own tests.
func TestConformance(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "cel.dev/expr").Output()
	if err != nil {
		t.Fatalf("find the suite: %v", err)
	}
	folder := filepath.Join(strings.TrimSpace(string(out)), "tests", "simple", "testdata")
	base, err := cel.NewEnv(libraries()...)
	if err != nil {
		t.Fatal(err)
	}
	used, skips := map[string]bool{}, map[string]int{}
	ran := 0
	for _, name := range conformanceFiles {
		text, err := os.ReadFile(filepath.Join(folder, name+".textproto"))
		if err != nil {
			t.Fatal(err)
		}
		var file test.SimpleTestFile
		if err := prototext.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		for _, section := range file.GetSection() {
			for _, simple := range section.GetTest() {
				full := name + "/" + section.GetName() + "/" + simple.GetName()
				if reason := skipped(full, simple, used); reason != "" {
					skips[reason]++
					continue
				}
				ran++
				if failure := conform(t, base, simple); failure != "" {
					t.Errorf("%s: %s: %s", full, simple.GetExpr(), failure)
				}
			}
		}
	}
	for name := range conformanceSkips {
		if !used[name] {
			t.Errorf("no test is skipped by %q", name)
		}
	}
	if ran < 1450 {
		t.Errorf("only %d tests ran", ran)
	}
	t.Logf("%d tests ran; skipped: %v", ran, skips)
}

// skipped returns why a test does not hold, "" if it has to.
func skipped(full string, simple *test.SimpleTest, used map[string]bool) string {
	if reason, ok := conformanceSkips[full]; ok {
		used[full] = true
		return reason
	}
	text := prototext.Format(simple)
	switch {
	case simple.GetDisableCheck(), simple.GetDisableMacros():
		return checked
	case strings.Contains(text, "TestAllTypes"), strings.Contains(text, "google.protobuf"):
		return noProtobuf
	}
	return ""
}

// conform returns how the test fails, "" if it does not.
func conform(t *testing.T, base *cel.Env, simple *test.SimpleTest) string {
	all, err := environments()
	if err != nil {
		t.Fatal(err)
	}
	options := []cel.EnvOption{cel.Container(simple.GetContainer())}
	for _, declaration := range simple.GetTypeEnv() {
		option, err := cel.ProtoAsDeclaration(declaration)
		if err != nil {
			return err.Error()
		}
		options = append(options, option)
	}
	extended, err := base.Extend(options...)
	if err != nil {
		return err.Error()
	}
	env := &environment{use: use{name: "a test"}, cel: extended, dispatcher: all[Filter].dispatcher}
	wantError := simple.GetEvalError() != nil || simple.GetAnyEvalErrors() != nil
	checked, issues := extended.Compile(simple.GetExpr())
	if issues.Err() != nil {
		if wantError {
			return ""
		}
		return issues.Err().Error()
	}
	if simple.GetCheckOnly() {
		return ""
	}
	program, err := env.plan(checked)
	if err != nil {
		if wantError {
			return ""
		}
		return err.Error()
	}
	bound := map[string]any{}
	for name, value := range simple.GetBindings() {
		if bound[name], err = cel.ProtoAsValue(extended.CELTypeAdapter(), value.GetValue()); err != nil {
			return err.Error()
		}
	}
	got, err := program.run(&evaluation{bound: bound})
	return compare(simple, extended, got, err, wantError)
}

func compare(simple *test.SimpleTest, env *cel.Env, got ref.Val, err error, wantError bool) string {
	switch {
	case wantError && err == nil:
		return "no error"
	case wantError:
		return ""
	case err != nil:
		return err.Error()
	}
	wanted := simple.GetValue()
	if wanted == nil {
		wanted = simple.GetTypedResult().GetResult()
	}
	if wanted == nil { // the default of the suite
		if got != types.True {
			return "not true"
		}
		return ""
	}
	want, err := cel.ProtoAsValue(env.CELTypeAdapter(), wanted)
	if err != nil {
		return err.Error()
	}
	if isNaN(want) && isNaN(got) {
		return ""
	}
	if types.Equal(want, got) != types.True || want.Type() != got.Type() {
		return "got " + got.Type().TypeName() + ", not as wanted"
	}
	return ""
}

func isNaN(v ref.Val) bool {
	d, ok := v.(types.Double)
	return ok && math.IsNaN(float64(d))
}
