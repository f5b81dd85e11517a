package event

import (
	"fmt"
	"slices"
	"strings"
)

// Action is what happened to a resource.
type Action string

// The actions that every resource has.
const (
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Actions lists every action, in the order of a resource's life.
var Actions = []Action{Created, Updated, Deleted}

// Resources lists the clinical resources that every dispatcher knows.
var Resources = []string{
	"patient", "encounter", "observation", "medication", "appointment", "intake", "consent", "lab",
	"prescription", "note", "assessment", "document", "practitioner", "practitioner-role",
}

// maxResourceLength bounds a site's own resource name, in bytes.
const maxResourceLength = 63

// Catalog is the set of event types a dispatcher accepts: the clinical resources and a site's own, each with every
// action. The zero Catalog knows no type; NewCatalog makes a usable one. A Catalog is immutable and safe for concurrent
// use.
type Catalog struct {
	types     map[string]Type // by its own text, so that a lookup returns a shared string
	resources []string
}

// NewCatalog returns the catalog of Resources and extra. It fails if an extra resource is not a lower-case RFC 1123
// label ("claim", "lab-order") of at most 63 bytes, or is Operational. A name that is known already is taken once.
func NewCatalog(extra ...string) (*Catalog, error) {
	c := &Catalog{types: make(map[string]Type)}
	for _, resource := range slices.Concat(Resources, extra) {
		if resource == Operational {
			return nil, fmt.Errorf("event resource %q is Event Flow's own; choose another name", resource)
		}
		if !isLabel(resource) {
			return nil, fmt.Errorf("event resource %q: want lower-case letters, digits and inner dashes, at most %d bytes", resource, maxResourceLength)
		}
		if slices.Contains(c.resources, resource) {
			continue
		}
		c.resources = append(c.resources, resource)
		for _, action := range Actions {
			t := Type(resource + "." + string(action))
			c.types[string(t)] = t
		}
	}
	return c, nil
}

// Resources returns the catalog's resources: the clinical ones first, then the site's own. Not to be modified.
func (c *Catalog) Resources() []string { return c.resources }

// Lookup returns the type written as text, and false if the catalog has none such. The bytes of text are not kept.
func (c *Catalog) Lookup(text []byte) (Type, bool) {
	t, ok := c.types[string(text)]
	return t, ok
}

// Has reports whether the catalog has resource. It does not have Operational, whose types nobody publishes.
func (c *Catalog) Has(resource string) bool { return slices.Contains(c.resources, resource) }

// Check returns an error that names the resource if the catalog cannot match p.
func (c *Catalog) Check(p Pattern) error {
	resource := p.Resource()
	if resource == "" || resource == Operational || c.Has(resource) {
		return nil
	}
	return fmt.Errorf("pattern %q: unknown resource %q; known are %s", p, resource, strings.Join(c.resources, ", "))
}

// Type is an event type, "{resource}.{action}", such as "patient.created". An operational one has two dots.
type Type string

// Resource is the part before the first dot: "practitioner-role" of "practitioner-role.updated".
func (t Type) Resource() string {
	resource, _, _ := strings.Cut(string(t), ".")
	return resource
}

// Action is the part behind the first dot.
func (t Type) Action() Action {
	_, action, _ := strings.Cut(string(t), ".")
	return Action(action)
}

// isLabel reports whether s is a lower-case RFC 1123 label.
func isLabel(s string) bool {
	if s == "" || len(s) > maxResourceLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range []byte(s) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
