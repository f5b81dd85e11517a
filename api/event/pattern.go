package event

import (
	"fmt"
	"slices"
	"strings"
)

// Pattern selects event types: "*" all that are published, "patient.*" a family, "patient.created" one. Nothing else is a
// pattern.
type Pattern string

// All is the pattern that matches every type but the operational ones.
const All Pattern = "*"

// ParsePattern returns s as a Pattern, or an error that says what a pattern is. It does not ask whether a catalog has
// the resource; see Catalog.Check.
func ParsePattern(s string) (Pattern, error) {
	if s == string(All) {
		return All, nil
	}
	resource, action, found := strings.Cut(s, ".")
	if resource == Operational && found {
		if isOperationalPattern(s) {
			return Pattern(s), nil
		}
		return "", fmt.Errorf("pattern %q: want %s.* or one of %v", s, Operational, OperationalTypes)
	}
	if !found || !isLabel(resource) || (action != "*" && !slices.Contains(Actions, Action(action))) {
		return "", fmt.Errorf("pattern %q: want *, {resource}.* or {resource}.{created|updated|deleted}", s)
	}
	return Pattern(s), nil
}

// Resource is the family that p selects from, and "" for All.
func (p Pattern) Resource() string {
	if p == All {
		return ""
	}
	return Type(p).Resource()
}

// IsFamily reports whether p is of the form "{resource}.*".
func (p Pattern) IsFamily() bool { return p != All && strings.HasSuffix(string(p), ".*") }

// Matches reports whether p selects t.
func (p Pattern) Matches(t Type) bool {
	return p == All && !t.IsOperational() || Type(p) == t || (p.IsFamily() && p.Resource() == t.Resource())
}
