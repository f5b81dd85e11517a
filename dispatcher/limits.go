package dispatcher

import (
	"cmp"

	"github.com/clinikapi/eventflow/dispatcher/limits"
)

// limits returns what the machine allows, with what the options say in its place.
func (o *Options) limits(derived limits.Limits) limits.Limits {
	derived.Places = cmp.Or(o.MaxInFlight, derived.Places)
	derived.Connections = cmp.Or(o.MaxConnections, derived.Connections)
	derived.MemoryBudget = cmp.Or(o.MaxMemory, derived.MemoryBudget)
	return derived
}
