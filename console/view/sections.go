package view

import "github.com/a-h/templ"

// section is an entry of the navigation.
type section struct{ path, name string }

// The sections of the panel, by the first part of their paths.
const (
	SectionSubscriptions = "subscriptions"
	SectionDeliveries    = "deliveries"
	SectionEvents        = "events"
	SectionTry           = "try"
	SectionDispatchers   = "dispatchers"
)

var sections = []section{
	{SectionSubscriptions, "Subscriptions"},
	{SectionDeliveries, "Deliveries"},
	{SectionEvents, "Events"},
	{SectionTry, "Try it"},
	{SectionDispatchers, "Dispatchers"},
}

// attributes mark a link as that of the page.
func attributes(current bool) templ.Attributes {
	if current {
		return templ.Attributes{"aria-current": "page"}
	}
	return nil
}
