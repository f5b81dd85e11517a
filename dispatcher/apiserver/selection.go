package apiserver

import (
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

// defaultPage is how many objects a list without a limit holds: all that may be. What there is more goes on by continue.
const defaultPage = query.MaxLimit

// selected is what a list or a watch asks for.
type selected struct {
	query.Selection
	// name is the only object that is meant, where it is not empty.
	name string
	// none is set if the selector can select nothing.
	none  bool
	limit int
	// resourceVersion, initial and bookmarks are a watch's.
	resourceVersion string
	initial         bool
	bookmarks       bool
	timeout         time.Duration
}

// fieldNames are what objects can be selected by.
var fieldNames = map[string][]string{
	v1alpha1.ResourceDeliveries: {"metadata.name", "metadata.namespace", v1alpha1.FieldState, v1alpha1.FieldSubscription, v1alpha1.FieldEventType, v1alpha1.FieldEventID, v1alpha1.FieldScheduledKey},
	v1alpha1.ResourceEvents:     {"metadata.name", "metadata.namespace", v1alpha1.FieldEventType, v1alpha1.FieldEventID},
}

// parseSelection reads the parameters of a list or a watch.
func parseSelection(c *call, values url.Values) (s selected, err error) {
	s = selected{limit: defaultPage, timeout: defaultWatch, resourceVersion: values.Get("resourceVersion")}
	if values.Get("labelSelector") != "" {
		return s, invalid(c, "labelSelector", "deliveries and events have no labels; select by "+strings.Join(fieldNames[c.Resource], ", "))
	}
	if err := s.selectFields(c, values.Get("fieldSelector")); err != nil {
		return s, err
	}
	if text := values.Get("limit"); text != "" && text != "0" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 0 {
			return s, badRequest("limit must be a number")
		}
		s.limit = min(limit, query.MaxLimit)
	}
	if text := values.Get("timeoutSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 0 {
			return s, badRequest("timeoutSeconds must be a number")
		}
		s.timeout = min(time.Duration(min(seconds, int(maxWatch/time.Second)))*time.Second, maxWatch)
	}
	s.Continue = values.Get("continue")
	s.initial = isTrue(values.Get("sendInitialEvents"))
	s.bookmarks = isTrue(values.Get("allowWatchBookmarks"))
	s.LastAttempt = true
	return s, nil
}

func isTrue(text string) bool { return text == "true" || text == "1" }

// selectFields sets what a field selector says.
func (s *selected) selectFields(c *call, text string) error {
	if text == "" {
		return nil
	}
	parsed, err := fields.ParseSelector(text)
	if err != nil {
		return badRequest("fieldSelector cannot be read")
	}
	for _, r := range parsed.Requirements() {
		if !slices.Contains(fieldNames[c.Resource], r.Field) {
			return invalid(c, "fieldSelector", "there is no field "+strconv.Quote(r.Field)+" to select by; there are "+strings.Join(fieldNames[c.Resource], ", "))
		}
		if r.Operator != selection.Equals && r.Operator != selection.DoubleEquals {
			return invalid(c, "fieldSelector", r.Field+" can be selected by = alone")
		}
		into := s.fieldOf(r.Field)
		if r.Field == "metadata.namespace" {
			s.none = s.none || r.Value != c.Namespace
			continue
		}
		s.none = s.none || *into != "" && *into != r.Value || r.Value == ""
		*into = r.Value
	}
	return nil
}

// fieldOf is where a field's value belongs.
func (s *selected) fieldOf(name string) *string {
	switch name {
	case v1alpha1.FieldState:
		return &s.State
	case v1alpha1.FieldSubscription:
		return &s.Subscription
	case v1alpha1.FieldEventType:
		return &s.EventType
	case v1alpha1.FieldEventID:
		return &s.EventID
	case v1alpha1.FieldScheduledKey:
		return &s.Key
	}
	return &s.name
}

// form is how objects are answered.
type form int

const (
	asObject form = iota
	asTable
)

// formOf returns the first form of an Accept header that can be had.
func formOf(accept []string) (form, error) {
	all := strings.Join(accept, ",")
	if strings.TrimSpace(all) == "" {
		return asObject, nil
	}
	for part := range strings.SplitSeq(all, ",") {
		media, parameters, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || media != "application/json" && media != "*/*" && media != "application/*" {
			continue
		}
		switch {
		case parameters["as"] == "":
			return asObject, nil
		case parameters["as"] == "Table" && parameters["v"] == "v1" && parameters["g"] == "meta.k8s.io":
			return asTable, nil
		}
	}
	return asObject, notAcceptable()
}
