package payload

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		paths   string
		data    string
		want    string
		wantErr bool
	}{
		"one key":                {paths: "name", data: `{"id": 1, "name": "Jane", "x":2}`, want: `{"id": 1, "x":2}`},
		"the first":              {paths: "id", data: `{"id": 1, "name": "Jane"}`, want: `{ "name": "Jane"}`},
		"the last":               {paths: "name", data: "{\"id\": 1 ,\n \"name\": \"Jane\"\n}", want: `{"id": 1 }`},
		"all":                    {paths: "a b", data: `{"a":1,"b":2}`, want: `{}`},
		"nested":                 {paths: "patient.name", data: `{"patient":{"name":"Jane","id":1.50},"n":1e2}`, want: `{"patient":{"id":1.50},"n":1e2}`},
		"each":                   {paths: "contacts[*].phone", data: `{"contacts":[{"phone":1,"x":2},{"phone":3}, {"y":[]}]}`, want: `{"contacts":[{"x":2},{}, {"y":[]}]}`},
		"each of each":           {paths: "a[*][*].b", data: `{"a":[[{"b":1}],[{"b":2,"c":3}]]}`, want: `{"a":[[{}],[{"c":3}]]}`},
		"elements":               {paths: "a[*]", data: `{"a":[1, 2]}`, want: `{"a":[]}`},
		"duplicate keys":         {paths: "a", data: `{"a":1,"b":2,"a":3}`, want: `{"b":2}`},
		"duplicate keys, nested": {paths: "a.b", data: `{"a":{"b":1},"a":{"b":2,"c":3}}`, want: `{"a":{},"a":{"c":3}}`},
		"escaped key":            {paths: "name", data: `{"n\u0061me":1,"nam":2}`, want: `{"nam":2}`},
		"absent":                 {paths: "x.y z[*].a", data: "{ \"a\" : [ ] , \"b\":{ }\t}", want: "{ \"a\" : [ ] , \"b\":{ }\t}"},
		"null on the way":        {paths: "a.b", data: `{"a":null}`, want: `{"a":null}`},
		"a text on the way":      {paths: "a.b", data: `{"a":"secret","c":1}`, want: `{"c":1}`},
		"a list for an object":   {paths: "a.b", data: `{"a":[{"b":1}],"c":1}`, want: `{"c":1}`},
		"an object for a list":   {paths: "a[*].b", data: `{"a":{"b":1},"c":1}`, want: `{"c":1}`},
		"a text among objects":   {paths: "a[*].b", data: `{"a":["secret",{"b":1}]}`, want: `{"a":[{}]}`},
		"either":                 {paths: "a[*].b a.b", data: `{"a":{"b":1,"c":2}}`, want: `{"a":{"c":2}}`},
		"the whole and a part":   {paths: "a a.b", data: `{"a":{"b":1,"c":2}}`, want: `{}`},
		"big numbers stay":       {paths: "x", data: `{"n":12345678901234567890.10,"x":1}`, want: `{"n":12345678901234567890.10}`},
		"empty object":           {paths: "x", data: `{ }`, want: `{ }`},
		"cut off":                {paths: "x", data: `{"a":1`, wantErr: true},
		"no JSON":                {paths: "x", data: `{"a":1,}`, wantErr: true},
		"more behind it":         {paths: "x", data: `{"a":1}{"x":1}`, wantErr: true},
		"no object":              {paths: "x", data: `["x"]`, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := parsePaths(strings.Fields(tc.paths))
			if err != nil {
				t.Fatal(err)
			}
			got, err := n.redacted([]byte(tc.data))
			if (err != nil) != tc.wantErr || string(got) != tc.want {
				t.Errorf("%q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"a": true, "a.b": true, "a[*]": true, "a[*][*].b-c d": true, "ü": true,
		"": false, ".": false, "a.": false, "[*]": false, "a[": false, "a[*": false, "a[0]": false, "a*": false, "a]": false, "a.[*]": false, `a\b`: false, "a[*]b": false,
	} {
		if _, err := parsePaths([]string{path}); (err == nil) != want {
			t.Errorf("%q: %v, want ok %t", path, err, want)
		}
	}
}

// FuzzRedact: what was removed is not in the result, what was not named is unchanged, and the result is JSON.
func FuzzRedact(f *testing.F) {
	f.Add(`{"a":{"b":1},"c":[{"d":2}]}`, "a.b", "c[*].d")
	f.Add(`{"a":1,"a":2}`, "a", "b")
	f.Add(`{"a":["x",{"b":null}]}`, "a[*].b", "a")
	f.Fuzz(func(t *testing.T, data, first, second string) {
		n, err := parsePaths([]string{first, second})
		if err != nil {
			return
		}
		got, err := n.redacted([]byte(data))
		var before map[string]any
		if !json.Valid([]byte(data)) || json.Unmarshal([]byte(data), &before) != nil || before == nil {
			if err == nil && json.Valid(got) != json.Valid([]byte(data)) {
				t.Fatalf("%q became %q", data, got)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		var after map[string]any
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		for _, path := range []string{first, second} {
			if leads(after, strings.Split(path, ".")) {
				t.Fatalf("%s is still in %q", path, got)
			}
		}
		for key := range before {
			named := func(path string) bool {
				return strings.TrimRight(strings.SplitN(path, ".", 2)[0], "[*]") == key
			}
			if !named(first) && !named(second) && !reflect.DeepEqual(before[key], after[key]) {
				t.Fatalf("%q changed: %v, %v", key, before[key], after[key])
			}
		}
	})
}

// leads reports whether a value that is not null is at the end of the path.
func leads(value any, path []string) bool {
	if len(path) == 0 {
		return value != nil
	}
	key := strings.TrimRight(path[0], "[*]")
	object, ok := value.(map[string]any)
	if !ok {
		return false
	}
	next, there := object[key]
	if !there {
		return false
	}
	lists := (len(path[0]) - len(key)) / 3
	if lists == 0 && len(path) == 1 {
		return true
	}
	values := []any{next}
	for range lists {
		var deeper []any
		for _, v := range values {
			if list, ok := v.([]any); ok {
				deeper = append(deeper, list...)
			}
		}
		values = deeper
	}
	for _, v := range values {
		if len(path) == 1 || leads(v, path[1:]) {
			return true
		}
	}
	return false
}
