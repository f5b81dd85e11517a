package routing

import (
	"encoding/base64"
)

// ShardRoom is what the entries of one shard may cost together, in bytes. Entries of that cost fit into a Secret whatever
// they hold: no text of a header or a URL, and no base64, has more than 7 bits in 8.
const ShardRoom = MaxShardBytes / 8 * 9

// The parts of an entry's cost that do not depend on what its author wrote: what is left of field names, numbers and
// punctuation when a shard is compressed.
const (
	entryCost = 144
	itemCost  = 8 // of each pattern, header or key
	// programWeight is how many bytes of room each byte of a compiled expression takes: a dispatcher has less memory for its
	// table than there is room in the Secrets of a large one.
	programWeight = 3
)

// Cost is what an entry takes of a routing table, in bytes: its texts as they are written down, and a fixed part. Costs
// add up, other than compressed sizes, so that no tenant's entries change what another's cost. What an operator gives a
// tenant, its quota and its rules, costs nothing: all entries of a namespace have it alike. An entry that waits costs what
// it did when it was accepted last. What an expression takes of a dispatcher's memory, once it is compiled, counts too.
func (e *Entry) Cost() int {
	cost := entryCost + len(e.Identity) + len(e.Namespace) + len(e.Name) + len(e.URL) + len(e.CA) + len(e.Waiting) + len(e.Source) +
		len(e.Filter) + programWeight*(e.FilterSize+e.ProgramSize) + e.automationCost() + e.TLS.cost() + serviceCost*len(e.Service)
	for name, value := range e.Labels {
		cost += itemCost + len(name) + len(value)
	}
	for _, pattern := range e.Patterns {
		cost += itemCost + len(pattern)
	}
	for name, values := range e.Header {
		for _, value := range values {
			cost += itemCost + len(name) + len(value)
		}
	}
	for _, key := range e.Keys {
		cost += itemCost + base64.StdEncoding.EncodedLen(len(key))
	}
	if len(e.KeySalt) > 0 {
		cost += itemCost + base64.StdEncoding.EncodedLen(len(e.KeySalt))
	}
	return max(cost, e.Room)
}
