package doctor

import (
	"cmp"
	"slices"
	"strings"
)

// Level says how bad a finding is.
type Level string

// The levels, the worst first.
const (
	// Failed: someone has to change something.
	Failed Level = "Failed"
	// Waiting: it does not work now, and may by itself or with another object.
	Waiting Level = "Waiting"
	// Warning: it works, and may soon not, or not for all.
	Warning Level = "Warning"
	// Note: something to know, such as what could not be looked at.
	Note Level = "Note"
)

var order = []Level{Failed, Waiting, Warning, Note}

// Finding is one thing that is wrong.
type Finding struct {
	// Check names the check that found it.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Object is KIND NAMESPACE/NAME, or KIND NAME; empty for the installation.
	Object string `json:"object,omitempty"`
	// Problem says what is wrong, Why what is known of the cause.
	Problem string `json:"problem"`
	Why     string `json:"why,omitempty"`
	// Mend is a command, or what to do where no command does it.
	Mend string `json:"mend"`
}

// Check is one kind of look at an installation.
type Check interface {
	// Name is one word.
	Name() string
	// Find returns what is wrong. It changes nothing, and asks nobody.
	Find(in *Installation) []Finding
}

// check is a Check by a function.
type check struct {
	name string
	find func(in *Installation) []Finding
}

func (c check) Name() string                    { return c.name }
func (c check) Find(in *Installation) []Finding { return c.find(in) }

// checks are all, in the order in which a cause comes before what follows from it.
func checks() []Check {
	return []Check{
		check{"rights", findRights},
		check{"definitions", findDefinitions},
		check{"manager", findManager},
		check{"apiservices", findAPIServices},
		check{"dispatchers", findDispatchers},
		check{"pods", findPods},
		check{"versions", findVersions},
		check{"storage", findStorage},
		check{"podsecurity", findPodSecurity},
		check{"certificates", findCertificates},
		check{"subscriptions", findSubscriptions},
		check{"secrets", findSecrets},
		check{"endpoints", findEndpoints},
		check{"replays", findReplays},
	}
}

// examine runs the checks, and returns what they find, the worst first.
func examine(in *Installation, checks []Check) []Finding {
	all := []Finding{}
	for _, c := range checks {
		for _, f := range c.Find(in) {
			f.Check = c.Name()
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, a.Level), slices.Index(order, b.Level))
	})
	return all
}

// broken reports whether something does not work.
func broken(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Failed || f.Level == Waiting })
}

// object names an object as kubectl does.
func object(kind, namespace, name string) string {
	return strings.TrimSpace(kind + " " + strings.TrimPrefix(namespace+"/"+name, "/"))
}
