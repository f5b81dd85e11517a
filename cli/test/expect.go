package test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

// expectation is one --expect.
type expectation struct {
	text         string
	number       int    // of the event; 0 for the last
	subscription string // "" for match and none
	word         string // in lower case
}

const (
	expectMatch = "match"
	expectNone  = "none"
)

func parseExpectations(texts []string) ([]expectation, error) {
	var all []expectation
	for _, text := range texts {
		e := expectation{text: text, word: strings.ToLower(text)}
		subscription, word, ok := strings.Cut(text, "=")
		if ok {
			e.subscription, e.word = subscription, strings.ToLower(word)
			if number, name, ok := strings.Cut(subscription, ":"); ok {
				n, err := strconv.Atoi(number)
				if err != nil || n < 1 {
					return nil, exit.Bad("--expect=%q: the number of an event counts from 1", text)
				}
				e.number, e.subscription = n, name
			}
		}
		if ok && (e.subscription == "" || e.word == "") || !ok && e.word != expectMatch && e.word != expectNone {
			return nil, exit.Bad("--expect=%q: want SUBSCRIPTION=OUTCOME, such as reminder=Scheduled, or match, or none", text)
		}
		all = append(all, e)
	}
	return all, nil
}

// result is the report, and what was expected of it.
type result struct {
	*simulate.Report

	Expectations []met `json:"expectations,omitempty"`
}

// met is an expectation, and whether it is.
type met struct {
	Expect string `json:"expect"`
	Met    bool   `json:"met"`
	// Got is the outcome in its place.
	Got string `json:"got,omitempty"`

	subscription string
}

func evaluate(report *simulate.Report, expectations []expectation) *result {
	r := &result{Report: report}
	for _, e := range expectations {
		m := met{Expect: e.text, subscription: e.subscription}
		m.Met, m.Got = e.met(report)
		r.Expectations = append(r.Expectations, m)
	}
	return r
}

// met reports whether the report is as expected, and what it has instead.
func (e *expectation) met(report *simulate.Report) (ok bool, got string) {
	if e.subscription == "" {
		caused := 0
		for _, event := range report.Events {
			for _, r := range event.Results {
				if r.Outcome != simulate.NoMatch {
					caused++
				}
			}
		}
		return (caused > 0) == (e.word == expectMatch), fmt.Sprintf("%d that match", caused)
	}
	number := e.number
	if number == 0 {
		number = len(report.Events)
	}
	if number > len(report.Events) {
		return false, fmt.Sprintf("there are %d events", len(report.Events))
	}
	for _, r := range report.Events[number-1].Results {
		if r.Subscription == e.subscription {
			got = string(r.Outcome)
			if r.Reason != "" {
				got += " (" + r.Reason + ")"
			}
			return strings.EqualFold(e.word, string(r.Outcome)) || strings.EqualFold(e.word, r.Reason), got
		}
	}
	return false, "no such subscription"
}

// verdict is the error that the command ends with.
func (r *result) verdict() error {
	var failed []string
	expected := map[string]bool{}
	for _, m := range r.Expectations {
		if !m.Met {
			failed = append(failed, fmt.Sprintf("--expect %s: got %s", m.Expect, m.Got))
		}
		expected[m.subscription] = true
	}
	for _, s := range r.Subscriptions {
		if !s.Accepted && !expected[s.Name] {
			failed = append(failed, fmt.Sprintf("subscription %s is not accepted (%s)", s.Name, s.Reason))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return errors.New(strings.Join(failed, "; "))
}
