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

// allowPorts are the ports below 1024 that deliveries may reach beside 80 and 443.
func (o *Options) allowPorts() []uint16 {
	ports := make([]uint16, 0, len(o.EgressAllowPorts))
	for _, port := range o.EgressAllowPorts {
		ports = append(ports, uint16(port))
	}
	return ports
}
