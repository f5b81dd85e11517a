package ingest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FuzzIsLabel holds isLabel against the check that the API server makes.
func FuzzIsLabel(f *testing.F) {
	long := strings.Repeat("a", validation.DNS1123LabelMaxLength)
	for _, seed := range []string{"", "a", "0", "-", "a-", "-a", "a-b", "a--0", "A", "a.b", "a_b", "ä", "a\x00", "`", "{", "/", ":", long, long + "a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := isLabel(s), len(validation.IsDNS1123Label(s)) == 0; got != want {
			t.Errorf("isLabel(%q) = %t, want %t", s, got, want)
		}
	})
}
