package expression

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestExplain: a condition is split at &&, || and !, and the terms from which its result follows are marked.
func TestExplain(t *testing.T) {
	t.Parallel()
	event := NewEvent("evt_1", "appointment.updated", time.Date(2026, 1, 15, 9, 0, 0, 0, time.UTC),
		[]byte(`{"status":"booked","n":7,"list":["a","b"],"nested":{"deep":"x"}}`), nil)
	for text, want := range map[string][]string{
		`event.data.status == 'booked'`: {`1:1 true! event.data.status == "booked" [event.data.status="booked"]`},
		`event.data.n > 8 && event.data.status == 'booked'`: {
			`1:1 false! event.data.n > 8 [event.data.n=7]`, `1:21 true event.data.status == "booked" [event.data.status="booked"]`},
		"event.data.absent != null ||\n !(event.data.n in [7, 8])": {
			`1:1 false! event.data.absent != null [event.data.absent=null]`, `2:4 not true! event.data.n in [7, 8] [event.data.n=7]`},
		`true || event.data.n > 'x'`:    {`1:1 true! true`, `1:9 error event.data.n > "x" [event.data.n=7]`},
		`event.data.n > 'x' && true`:    {`1:1 error! event.data.n > "x" [event.data.n=7]`, `1:23 true true`},
		`event.data.n > 'x' && false`:   {`1:1 error event.data.n > "x" [event.data.n=7]`, `1:23 false! false`},
		`!!(event.data.n == 7)`:         {`1:4 true! event.data.n == 7 [event.data.n=7]`},
		`has(event.data.nested.deep)`:   {`1:1 true! has(event.data.nested.deep)`},
		`size(event.data.list) == 2`:    {`1:1 true! size(event.data.list) == 2 [event.data.list=["a","b"]]`},
		`event.data.previous == null`:   {`1:1 true! event.data.previous == null [event.data.previous=null]`},
		`event.previous.status != null`: {`1:1 false! event.previous.status != null [event.previous.status=null]`},
		`event.data.list.exists(x, x == 'b' && x != event.data.status)`: {
			`1:1 true! event.data.list.exists(x, x == "b" && x != event.data.status) [event.data.list=["a","b"] event.data.status="booked"]`},
		`(event.data.n == 1 || event.data.n == 7) && subscription.name == 's'`: {
			`1:2 false event.data.n == 1 [event.data.n=7]`, `1:23 true! event.data.n == 7 [event.data.n=7]`, `1:45 true! subscription.name == "s" [subscription.name="s"]`},
	} {
		terms, err := Explain(Filter, text, &Variables{Event: event, Subscription: NewSubscription("s", "clinic-a", nil)})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, term := range terms {
			got = append(got, shown(term))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n got %s\nwant %s", text, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
	if _, err := Explain(Filter, "event.data.n >", &Variables{Event: event}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a condition that does not compile: %v", err)
	}
}

func shown(t Term) string {
	value := fmt.Sprint(t.Value)
	if t.Err != "" {
		value = "error"
	}
	if t.Negated {
		value = "not " + value
	}
	if t.Decides {
		value += "!"
	}
	text := fmt.Sprintf("%d:%d %s %s", t.Line, t.Column, value, t.Text)
	var operands []string
	for _, o := range t.Operands {
		operands = append(operands, o.Text+"="+o.JSON)
	}
	if len(operands) > 0 {
		text += " [" + strings.Join(operands, " ") + "]"
	}
	return text
}

// FuzzExplain: no condition makes it panic, and one that compiles has terms, of which one decides.
func FuzzExplain(f *testing.F) {
	for _, text := range []string{"true", "!(event.data.n in [7, 8]) || event.data.a.b == 'x'", "event.data.list.exists(x, x == 'b')", "has(event.data.n) ? true : false", "a &&"} {
		f.Add(text)
	}
	variables := &Variables{
		Event:        NewEvent("evt_1", "lab.created", time.Unix(0, 0), []byte(`{"n":7,"list":["a","b"]}`), nil),
		Subscription: NewSubscription("s", "clinic-a", nil),
	}
	f.Fuzz(func(t *testing.T, text string) {
		terms, err := Explain(Filter, text, variables)
		if err != nil {
			return
		}
		decides := false
		for _, term := range terms {
			decides = decides || term.Decides
		}
		if !decides {
			t.Errorf("no term of %q decides: %+v", text, terms)
		}
	})
}
