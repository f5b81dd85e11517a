// Package spelling finds in keys, tokens, URLs and certificates what nobody meant to write and nobody sees: characters that
// an editor, a web page or a shell added.
package spelling

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// names are those that people can look up; of the others, only the kind is said.
var names = map[rune]string{
	0x00: "NUL character", '\t': "tab", '\n': "line feed", '\r': "carriage return", 0x1b: "escape character", 0x7f: "delete character",
	0x85: "next line character", 0xa0: "no-break space", 0xad: "soft hyphen", 0x200b: "zero width space", 0x200c: "zero width non-joiner",
	0x200d: "zero width joiner", 0x200e: "left-to-right mark", 0x200f: "right-to-left mark", 0x2028: "line separator", 0x2029: "paragraph separator",
	0x202f: "narrow no-break space", 0x2060: "word joiner", 0x3000: "ideographic space", 0xfeff: "byte order mark", utf8.RuneError: "replacement character",
}

// Odd describes the first odd character of a text, such as "a no-break space (U+00A0) at its end". It returns "" if there
// is none, and for bytes that are no text. Odd are control and format characters, spaces other than U+0020, and the
// replacement character that a failed conversion leaves. The description shows nothing else of the text.
func Odd(text []byte) string {
	if !utf8.Valid(text) {
		if (bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff"))) && bytes.IndexByte(text, 0) >= 0 {
			return "a byte order mark of UTF-16 at its beginning"
		}
		return ""
	}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch odd := isOdd(r); {
		case odd && i == 0:
			return Name(r) + " at its beginning"
		case odd && i+size == len(text):
			return Name(r) + " at its end"
		case odd:
			return Name(r) + " inside"
		}
		i += size
	}
	return ""
}

// isOdd reports whether a character is one that nobody sees, or no character at all.
func isOdd(r rune) bool {
	if r >= ' ' && r <= '~' {
		return false
	}
	return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zs, unicode.Zl, unicode.Zp,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Name returns what an odd character is called, with its number, such as "a no-break space (U+00A0)".
func Name(r rune) string {
	name, known := names[r]
	switch {
	case known:
	case unicode.IsControl(r):
		name = "control character"
	case unicode.Is(unicode.Zs, r):
		name = "space of another kind"
	default:
		name = "format character"
	}
	article := "a"
	if name[0] == 'e' || name[0] == 'i' {
		article = "an"
	}
	return fmt.Sprintf("%s %s (U+%04X)", article, name, r)
}
