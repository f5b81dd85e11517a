package spelling_test

import (
	"testing"

	"github.com/clinikapi/eventflow/api/spelling"
)

func TestOdd(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":                 {"", ""},
		"text":                    {"a plain text, ~!", ""},
		"other scripts":           {"Zürich 東京 🧪", ""},
		"bytes":                   {"\x00\xff\n\x80", ""},
		"NUL":                     {"a\x00b", "a NUL character (U+0000) inside"},
		"tab":                     {"\ta", "a tab (U+0009) at its beginning"},
		"line feed":               {"a\n", "a line feed (U+000A) at its end"},
		"carriage return":         {"a\r\n", "a carriage return (U+000D) inside"},
		"bell":                    {"a\ab", "a control character (U+0007) inside"},
		"delete":                  {"a\x7f", "a delete character (U+007F) at its end"},
		"C1":                      {"a\u0090b", "a control character (U+0090) inside"},
		"no-break space":          {"a\u00a0", "a no-break space (U+00A0) at its end"},
		"soft hyphen":             {"a\u00adb", "a soft hyphen (U+00AD) inside"},
		"thin space":              {"a\u2009b", "a space of another kind (U+2009) inside"},
		"zero width space":        {"\u200ba", "a zero width space (U+200B) at its beginning"},
		"line separator":          {"a\u2028b", "a line separator (U+2028) inside"},
		"right-to-left override":  {"a\u202eb", "a format character (U+202E) inside"},
		"ideographic space":       {"a\u3000", "an ideographic space (U+3000) at its end"},
		"byte order mark":         {"\ufeffa", "a byte order mark (U+FEFF) at its beginning"},
		"byte order mark inside":  {"a\ufeffb", "a byte order mark (U+FEFF) inside"},
		"hangul filler":           {"a\u3164b", "a format character (U+3164) inside"},
		"variation selector":      {"a\ufe0fb", "a format character (U+FE0F) inside"},
		"tag":                     {"a\U000e0041b", "a format character (U+E0041) inside"},
		"replacement":             {"a\ufffdb", "a replacement character (U+FFFD) inside"},
		"UTF-16, little":          {"\xff\xfea\x00b\x00", "a byte order mark of UTF-16 at its beginning"},
		"UTF-16, big":             {"\xfe\xff\x00a\x00b", "a byte order mark of UTF-16 at its beginning"},
		"UTF-16 without the mark": {"a\x00b\x00", "a NUL character (U+0000) inside"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := spelling.Odd([]byte(tc.text)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
