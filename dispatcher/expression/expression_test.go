package expression

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCompileErrors: the text of an error is one line with a place, fit for a condition.
func TestCompileErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		use  Use
		text string
		want string
	}{
		"a field that is not there": {Filter, "event.dat.x == 1", "line 1, column 6: undefined field 'dat'"},
		"on the second line":        {Filter, "event.id == 'a' &&\n  evnt.id == 'b'", "line 2, column 3: undeclared reference to 'evnt'"},
		"types":                     {Filter, "event.id > 5", "line 1, column 10: found no matching overload for '_>_' applied to '(string, int)'"},
		"no bool":                   {Filter, "event.id", "a filter must result in bool, not in string"},
		"no time":                   {ScheduleTime, "1 + 1", "the time of a schedule must result in timestamp or string, not in int"},
		"empty":                     {Filter, "  ", "a filter must not be empty"},
		"a pattern":                 {Filter, "event.data.a.matches('(')", "line 1, column 22: invalid pattern: missing closing )"},
		"a pattern of a function":   {Filter, "regex.extract('a', '[') == optional.none()", "line 1, column 20: invalid pattern: missing closing ]"},
		"a pattern that repeats":    {Filter, "event.data.a.matches('(a{100}){21}')", "line 1, column 22: invalid pattern: invalid repeat count"},
		"patterns that are large":   {Filter, "event.data.a.matches('a{1000}') || event.data.a.matches('b{1000}')", "line 1, column 57: the patterns of an expression may have 2000 instructions; repeat less"},
		"a timestamp":               {Filter, "event.timestamp > timestamp('today')", "line 1, column 29: invalid timestamp argument"},
		"a variable of another use": {Filter, "now > event.timestamp", "line 1, column 1: undeclared reference to 'now'"},
		"too long":                  {Filter, "event.id == '" + strings.Repeat("a", MaxText) + "'", "a filter may be 4096 bytes long; this one has 4110"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile(test.use, test.text)
			var invalid *InvalidError
			if !errors.As(err, &invalid) || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestErrorsShowNoData: what goes wrong at run time is told with a reason, a place and types.
func TestErrorsShowNoData(t *testing.T) {
	t.Parallel()
	const secret = "Jane-Roe-1970"
	data := `{"name": "` + secret + `", "n": 5, "zero": 0, "big": 9223372036854775807, "list": ["` + secret + `"], "none": null}`
	tests := map[string]struct {
		text       string
		wantReason Reason
		want       string
	}{
		"null > 5":     {"event.data.none > 5", WrongType, "line 1, column 17: operator > does not take null and int"},
		"a method":     {"event.data.absent.startsWith('a')", WrongType, "line 1, column 29: function startsWith does not take null and string"},
		"a field":      {"event.data.name.first == 'a'", WrongType, "line 1, column 16: a value of type string has no fields and no elements"},
		"a time":       {"timestamp(event.data.name) > event.timestamp", InvalidValue, "line 1, column 10: function timestamp cannot take this value: it got string"},
		"a zone":       {"event.timestamp.getHours(event.data.name) > 1", InvalidValue, "line 1, column 25: function getHours cannot take this value: it got timestamp and string"},
		"zero":         {"1 / event.data.zero == 1", InvalidValue, "line 1, column 3: operator / cannot take this value: it got int and int"},
		"overflow":     {"event.data.big + 1 > 0", InvalidValue, "line 1, column 16: operator + cannot take this value: it got int and int"},
		"a condition":  {"event.data.name ? true : false", WrongType, ""},
		"a pattern":    {"'a'.matches(event.data.name + '(')", InvalidValue, "line 1, column 12: function matches cannot take this value: it got string and string"},
		"an index":     {"event.data.list[event.data.name] == 1", WrongType, "line 1, column 16: the index of a list is an int, not a value of type string"},
		"not a bool":   {"event.data.name", WrongType, "the result of a filter is of type string, not bool"},
		"no list":      {"event.data.name.exists(c, c == 'a')", WrongType, ""},
		"&&":           {"event.data.name && true", WrongType, ""},
		"a map":        {"{event.data.list: 1} == {}", WrongType, ""},
		"in an order":  {"event.data.list.map(x, x > 5) == []", WrongType, "line 1, column 26: operator > does not take string and int"},
		"another cost": {"lists.range(event.data.big).size() == 1", CostExceeded, "the evaluation needs more than 100000 units; read less of the event, or shorter lists"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := mustCompile(t, Filter, test.text).Bool(filterVariables(data))
			checkError(t, err, secret, "922337")
			var known *Error
			if errors.As(err, &known); known.Reason != test.wantReason || test.want != "" && err.Error() != test.want {
				t.Errorf("got %s: %v; want %s: %s", known.Reason, err, test.wantReason, test.want)
			}
		})
	}
}

// TestCostIsLimited: no expression takes more than its budget, however small its text is.
func TestCostIsLimited(t *testing.T) {
	t.Parallel()
	doubling := "[[1,1]]" + strings.Repeat(".map(a, [a,a])", 40)
	longText := "['aaaaaaaaaaaaaaaa']" + strings.Repeat(".map(a, a+a)", 13) // 128 KiB
	tests := map[string]string{
		"a list that doubles is compared":   doubling + " == " + doubling,
		"a list that doubles is searched":   doubling + " in [" + doubling + "]",
		"a text that doubles":               "['aaaaaaaaaaaaaaaa']" + strings.Repeat(".map(a, a+a)", 40) + " == ['a']",
		"patterns that are compiled":        "lists.range(100).all(a, lists.range(50).all(b, !'a'.matches('(x|y)*' + string(b))))",
		"zones that are read":               "lists.range(40).all(a, lists.range(50).all(b, event.timestamp.getHours('America/New_York') > 0))",
		"a range":                           "lists.range(2000000).size() == 1",
		"nested loops":                      "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))",
		"loops that make nothing":           "lists.range(3000).filter(a, lists.range(3000).filter(b, false) != []) == []",
		"an expression that always goes on": "lists.range(1000).exists(a, lists.range(1000).exists(b, false)) || true",
		"replacing":                         "['aaaaaaaaaaaaaaaa']" + strings.Repeat(".map(a, a.replace('', a))", 6) + " == ['a']",
		"joining":                           "lists.range(1000).map(i, lists.range(1000).map(j, 'aaaaaaaaaaaaaaaaaaaaaaaaa').join()).join() == 'a'",
		"distinct":                          "lists.range(10000).distinct().size() == 1",
		"sets":                              "sets.contains(lists.range(5000), lists.range(5000))",
		"a pattern that is slow":            longText + ".exists(s, s.matches('(a{0,900})*b'))",
		"a pattern from the event":          longText + ".exists(s, s.matches('(a{0,900}' + ')*b'))",
		"a pattern that is large":           "'a'.matches('" + strings.Repeat("a{1000}", 300) + "' + '')",
		"extracting to the end each time":   longText + ".map(s, regex.extractAll(s, 'a.*b|a')) == []",
		"replacing to the end each time":    longText + ".map(s, regex.replace(s, 'a.*b|a', '')) == []",
		"replacing at each boundary":        longText + ".map(s, regex.replace(s, '\\ba.*b|a', '')) == []",
		"formatting numbers":                "lists.range(10000).map(i, '%.100f'.format([1.0e300])) == []",
		"formatting":                        "['%s'.format([" + doubling + "])] == ['a']",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := mustCompile(t, Filter, text).Bool(filterVariables("{}"))
			var known *Error
			if !errors.As(err, &known) || known.Reason != CostExceeded {
				t.Errorf("got %v, want CostExceeded", err)
			}
		})
	}
	body := mustCompile(t, TransformBody, doubling)
	if _, err := body.Value(filterVariables("{}")); err == nil {
		t.Error("a body that doubles is a value")
	}
}

// TestTransforms: bodies as JSON and as forms, with the functions that are for them.
func TestTransforms(t *testing.T) {
	t.Parallel()
	variables := filterVariables(`{"z": 1, "start": "2026-03-08T15:04:00Z", "list": ["a", "b"], "price": 1e6, "name": "Zoë & co"}`)
	variables.Lookup = NewDocument([]byte(`{"phone": "+15550111", "order": {"b": 1, "a": 2.50}}`))
	variables.Delivery = NewDelivery("del_1", 2, time.Date(2026, 3, 8, 9, 0, 0, 0, time.UTC))
	tests := map[string]struct {
		text     string
		wantJSON string
		wantForm string
	}{
		"a reminder": {"{'To': lookup.phone, 'From': '+15550100', 'Body': 'at ' + formatTime(event.data.start, 'America/New_York', '3:04 PM')}",
			`{"Body":"at 11:04 AM","From":"+15550100","To":"+15550111"}`, "Body=at+11%3A04+AM&From=%2B15550100&To=%2B15550111"},
		"a list":          {"{'to': event.data.list, 'n': 1}", `{"n":1,"to":["a","b"]}`, "n=1&to=a&to=b"},
		"order of keys":   {"lookup.order", `{"b":1,"a":2.5}`, "a=2.5&b=1"},
		"null":            {"{'a': event.data.absent}", `{"a":null}`, ""},
		"a time":          {"{'t': event.timestamp, 'p': delivery.planned}", `{"p":"2026-03-08T09:00:00Z","t":"2026-01-15T09:15:00Z"}`, "p=2026-03-08T09%3A00%3A00Z&t=2026-01-15T09%3A15%3A00Z"},
		"numbers":         {"{'a': event.data.price, 'b': toString(event.data.price), 'c': toString(3.0), 'd': toString(0.1)}", `{"a":1000000,"b":"1000000","c":"3","d":"0.1"}`, "a=1000000&b=1000000&c=3&d=0.1"},
		"the delivery":    {"{'key': delivery.id, 'attempt': delivery.attempt}", `{"attempt":2,"key":"del_1"}`, "attempt=2&key=del_1"},
		"hashes":          {"{'h': hex.encode(sha256('abc')), 'x': hex.encode('a'), 'y': base64.encode('a'), 'd': string(hex.decode('61'))}", `{"d":"a","h":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","x":"61","y":"YQ=="}`, "d=a&h=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad&x=61&y=YQ%3D%3D"},
		"escapes":         {"{'u': urlEscape(event.data.name), 'j': json.encode({'a': [1, null, 'x']})}", `{"j":"{\"a\":[1,null,\"x\"]}","u":"Zo%C3%AB%20%26%20co"}`, "j=%7B%22a%22%3A%5B1%2Cnull%2C%22x%22%5D%7D&u=Zo%25C3%25AB%2520%2526%2520co"},
		"a list as JSON":  {"[1, 2.5, 'a', b'a', duration('90s'), optional.of(1), optional.none()]", `[1,2.5,"a","YQ==","90s",1,null]`, ""},
		"a key of a type": {"{1: 'a', 2: 'b'}", `{"1":"a","2":"b"}`, "1=a&2=b"},
		"keys alike":      {"{1: 'a', '1': 'b'}", "", ""},
		"no document":     {"{'a': type(1)}", "", ""},
		"infinite":        {"[1.0 / 0.0]", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value, err := mustCompile(t, TransformBody, test.text).Value(variables)
			if err != nil {
				t.Fatal(err)
			}
			document, err := value.JSON()
			if string(document) != test.wantJSON || (err != nil) != (test.wantJSON == "") {
				t.Errorf("JSON is %s (%v), want %s", document, err, test.wantJSON)
			}
			form, err := value.Form()
			if string(form) != test.wantForm || (err != nil) != (test.wantForm == "") {
				t.Errorf("the form is %s (%v), want %s", form, err, test.wantForm)
			}
		})
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	v := filterVariables(`{"id": "apt_1", "n": 12345678901234567890, "start": "2026-01-15T09:00:00-05:00", "num": 7}`)
	at, err := mustCompile(t, ScheduleTime, "timestamp(event.data.start) - duration('24h')").Time(v)
	if want := time.Date(2026, 1, 14, 14, 0, 0, 0, time.UTC); err != nil || !at.Equal(want) {
		t.Errorf("at is %s, %v", at, err)
	}
	if at, err = mustCompile(t, ScheduleTime, "event.data.start").Time(v); err != nil || at.Hour() != 9 {
		t.Errorf("a text as time is %s, %v", at, err)
	}
	for _, text := range []string{"event.data.id", "event.data.absent", "event.data.num"} {
		_, err := mustCompile(t, ScheduleTime, text).Time(v)
		checkError(t, err, "apt_1")
	}
	for text, want := range map[string]string{"event.data.id": "apt_1", "event.data.num": "7", "event.data.absent": "", "'a' + event.data.id": "aapt_1"} {
		key, ok, err := mustCompile(t, ScheduleKey, text).Key(v)
		if key != want || ok != (want != "") || err != nil {
			t.Errorf("the key %s is %q, %t, %v", text, key, ok, err)
		}
	}
	_, _, err = mustCompile(t, ScheduleKey, "event.data.n").Key(v) // a double: digits are lost
	checkError(t, err)
	v.Now = time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)
	if ok, err := mustCompile(t, Recheck, "now < timestamp(event.data.start)").Bool(v); !ok || err != nil {
		t.Errorf("recheck is %t, %v", ok, err)
	}
	url, err := mustCompile(t, LookupURL, "'https://api.example.com/v1/' + urlEscape(event.data.id)").Text(v)
	if url != "https://api.example.com/v1/apt_1" || err != nil {
		t.Errorf("the URL is %s, %v", url, err)
	}
	slack := Variables{Response: NewResponse(200, http.Header{"X-Kind": {"a", "b"}}, []byte(`{"ok": false}`))}
	for text, want := range map[string]bool{
		"response.status == 200 && response.body.ok": false, "response.body.ok == false": true,
		"response.headers['x-kind'] == 'a, b'": true, "response.headers['absent'] == null": true,
	} {
		if got, err := mustCompile(t, Outcome, text).Bool(&slack); got != want || err != nil {
			t.Errorf("%s is %t, %v", text, got, err)
		}
	}
	page := Variables{Response: NewResponse(502, nil, []byte("<html>"))}
	if got, err := mustCompile(t, Outcome, "response.body.ok == true").Bool(&page); got || err != nil {
		t.Errorf("the outcome of a page is %t, %v", got, err)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	big := "[" + strings.Repeat("0,", MaxValues) + "0]"
	tests := map[string]struct {
		data, text string
		want       string
		wantReason Reason
	}{
		"the last key counts":        {`{"a": 1, "a": 2}`, "event.data.a == 2 && size(event.data) == 1", "T", ""},
		"many keys":                  {`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"a":12}`, "event.data.a == 12 && event.data.k == 11 && event.data.l == null", "T", ""},
		"keys keep their order":      {`{"z":1,"a":2,"m":3}`, "event.data.map(k, k) == ['z','a','m']", "T", ""},
		"an exact int":               {`{"a": 9223372036854775807}`, "event.data.a == 9223372036854775807", "T", ""},
		"beyond an int":              {`{"a": 9223372036854775808}`, "type(event.data.a) == double && event.data.a > 9223372036854770000", "T", ""},
		"a fraction of zero":         {`{"a": 1.0}`, "event.data.a == 1 && type(event.data.a) == double", "T", ""},
		"beyond a double":            {`{"a": 1e400}`, "event.data.a > 1e300", "T", ""},
		"escapes":                    {`{"a\u0062": "\u00e9\n"}`, "event.data.ab == '\u00e9\\n'", "T", ""},
		"a surrogate alone":          {`{"a": "\ud83d"}`, "event.data.a == '\ufffd'", "T", ""},
		"not JSON":                   {`{"a": `, "event.data.a == 1", "E", MalformedData},
		"not JSON, not read":         {`{"a": `, "event.id == 'evt_1'", "T", ""},
		"more behind it":             {`{"a": 1} 2`, "event.data.a == 1", "E", MalformedData},
		"too many values":            {`{"a": ` + big + `}`, "event.data.b == null", "E", CostExceeded},
		"no previous":                {`{}`, "event.previous == null && event.previous.status == null", "T", ""},
		"objects in any order":       {`{"a": {"x":1,"y":2}, "b": {"y":2,"x":1}}`, "event.data.a == event.data.b", "T", ""},
		"two variables of a macro":   {`{"a": {"x":1,"y":2}}`, "event.data.a.all(k, v, k != 'x' || v == 1)", "T", ""},
		"a label that is not there":  {`{}`, "subscription.labels.site == null && subscription.labels['team'] == 'front-desk'", "T", ""},
		"the subscription":           {`{}`, "subscription.name == 'reminders' && subscription.namespace == 'clinic-a'", "T", ""},
		"the event":                  {`{}`, "event.type == 'appointment.created' && event.timestamp == timestamp('2026-01-15T09:15:00Z')", "T", ""},
		"a computed key":             {`{"k": "b", "a": {"b": 1}, "l": [5, 6], "i": 1}`, "event.data.a[event.data.k] == 1 && event.data.l[event.data.i] == 6 && event.data.l[event.data.i + 1] == null", "T", ""},
		"a conditional":              {`{"a": {"b": 1}}`, "(event.data.x == null ? event.data.a : event.data.x).b == 1", "T", ""},
		"optional elements":          {`{"l": [5]}`, "event.data.l[?0].orValue(0) == 5 && !event.data.l[?1].hasValue() && !event.data.?m.?n.hasValue()", "T", ""},
		"has behind what is not":     {`{"a": {"b": null}}`, "has(event.data.a.b) && !has(event.data.x.y.z) && !has(event.data.a.b.c)", "T", ""},
		"has of a computed object":   {`{"l": [{"b": 1}]}`, "has(event.data.l[0].b) && !has(event.data.l[1].b)", "T", ""},
		"an absent field in a macro": {`{"l": [{"b": 1}, {}, null]}`, "event.data.l.filter(x, x.b == null).size() == 2", "T", ""},
		"zones":                      {`{"t": "2026-07-01T12:00:00Z"}`, "timestamp(event.data.t).getHours('America/New_York') == 8", "T", ""},
		"sets":                       {`{"l": ["a", "b"]}`, "sets.contains(event.data.l, ['a'])", "T", ""},
		"regex":                      {`{"s": "abc 12"}`, "event.data.s.matches('[a-c]+ [0-9]+') && regex.extract(event.data.s, '([0-9]+)').orValue('') == '12'", "T", ""},
		"strings":                    {`{"s": "A,b"}`, "event.data.s.lowerAscii().split(',') == ['a', 'b']", "T", ""},
		"a global name in a macro":   {`{"l": [1]}`, "event.data.l.exists(event, event == 1)", "T", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := truth(t, test.text, test.data)
			var known *Error
			if errors.As(err, &known); got != test.want || known != nil && known.Reason != test.wantReason {
				t.Errorf("got %s, %v; want %s %s", got, err, test.want, test.wantReason)
			}
		})
	}
}

// TestOutputIsLimited: a body is at most 1 MiB long as it is sent, whatever its escapes make of the data.
func TestOutputIsLimited(t *testing.T) {
	t.Parallel()
	write := func(text string, data []byte, as func(Value) ([]byte, error)) error {
		variables := &Variables{Event: NewEvent("evt_1", "appointment.created", time.Unix(0, 0), data, nil)}
		value, err := mustCompile(t, TransformBody, text).Value(variables)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		_, err = as(value)
		return err
	}
	data := func(unit string, n int) []byte { return []byte(`{"text":"` + strings.Repeat(unit, n) + `"}`) }
	asText := func(v Value) ([]byte, error) { text, err := v.Text(); return []byte(text), err }
	for name, tc := range map[string]struct {
		text string
		unit string
		fits int // how many of unit fit
		as   func(Value) ([]byte, error)
	}{
		"text": {"event.data.text", "x", MaxOutput, asText},
		"JSON": {"{'t': event.data.text}", `\"`, (MaxOutput - len(`{"t":""}`)) / 2, Value.JSON},
		"form": {"{'t': event.data.text}", "+", (MaxOutput - len("t=")) / 3, Value.Form},
	} {
		if err := write(tc.text, data(tc.unit, tc.fits), tc.as); err != nil {
			t.Errorf("%s: what fits is refused: %v", name, err)
		}
		var known *Error
		if err := write(tc.text, data(tc.unit, tc.fits+1), tc.as); !errors.As(err, &known) || known.Reason != CostExceeded {
			t.Errorf("%s: what is longer gave %v", name, err)
		}
	}
}

// TestDataIsParsedOnce: however many filters look at an event, its data is read by the first. The others do not notice that the
// text is gone.
func TestDataIsParsedOnce(t *testing.T) {
	t.Parallel()
	data := []byte(`{"number": 5, "list": [1, 2, 3]}`)
	variables := &Variables{Event: NewEvent("evt_1", "appointment.created", time.Unix(0, 0), data, nil)}
	for _, text := range []string{"event.data.number == 5", "event.data.list.exists(i, i == 3)", "size(event.data.list) == 3"} {
		if ok, err := mustCompile(t, Filter, text).Bool(variables); !ok || err != nil {
			t.Errorf("%s: %t, %v", text, ok, err)
		}
		clear(data)
	}
}

// TestOneEventManyFilters: a program and an event may be used by many goroutines; the race detector looks on.
func TestOneEventManyFilters(t *testing.T) {
	t.Parallel()
	program := mustCompile(t, Filter, "event.data.list.exists(i, i == 'a') && event.previous == null && event.data.text.matches('a')")
	variables := filterVariables(truthData)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if ok, err := program.Bool(variables); !ok || err != nil {
					t.Errorf("got %t, %v", ok, err)
				}
			}
		})
	}
	group.Wait()
}

func TestInvalidErrorIsOneLine(t *testing.T) {
	t.Parallel()
	err := &InvalidError{Issues: []Issue{{1, 2, "a\nb"}, {0, 0, "c"}, {3, 4, "d"}, {5, 6, "e"}, {7, 8, "f"}}}
	const want = "line 1, column 2: a b; c; line 3, column 4: d; and 2 more"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}
