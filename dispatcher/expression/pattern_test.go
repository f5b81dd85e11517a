package expression

import (
	"regexp/syntax"
	"testing"
)

// TestPatternSize: the estimate is never much less than what package regexp makes. It is more for classes of many ranges.
func TestPatternSize(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"", "a", "abc", "(a)", "a*", "(a|b|cd)+x?", "[a-z]{3,5}", "a{1000}", "(a{0,1000})*b", "((a{10}){10}){10}", "(a{2,}){3}",
		`^\d{4}-\d{2}-\d{2}$`, `\p{L}+`, "(?i)straße", `\bx\B`, "(?s).{50}", "(((((a?)?)?)?)?)", "(x{1,9}|y){1,99}",
	} {
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		estimate := patternSize(tree)
		program, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		if made := int64(len(program.Inst)); 2*estimate+4 < made || estimate > 50*made {
			t.Errorf("%q: estimated %d, made %d", pattern, estimate, made)
		}
	}
}
