package routing

import (
	"fmt"

	"github.com/clinikapi/eventflow/api/event"
)

// Layout is how many shards a routing table is divided into. A table begins with Small and becomes Large as it grows. The
// shards of the two have names of their own, so that one can be written while dispatchers go by the other; the index says
// which one counts.
type Layout int

const (
	// Small is the layout of an index that names none, as all of earlier versions are.
	Small Layout = Shards
	// Large holds 100,000 subscriptions with a token of 1,000 characters each.
	Large Layout = 256
)

// layouts are those that a reader knows.
var layouts = []Layout{Small, Large}

// Shards is how many parts a Small routing table is divided into. Empty ones are not written.
const Shards = 64

// ShardOf is the shard, 0 to l-1, that holds the subscription with the given identity.
func (l Layout) ShardOf(identity string) int {
	key := event.NewSubscriptionKey(identity)
	return int(key[len(key)-1]) % int(l)
}

// ShardName is the name of the Secret that holds a dispatcher's shard i, such as "default-routes-07" or
// "default-routes-256-007".
func (l Layout) ShardName(dispatcher string, i int) string {
	if l == Small {
		return fmt.Sprintf("%s-routes-%02d", dispatcher, i)
	}
	return fmt.Sprintf("%s-routes-%d-%03d", dispatcher, l, i)
}

// ShardNames are the names that shards of a dispatcher may have: all that it must be able to read beside its index.
func ShardNames(dispatcher string) []string {
	var names []string
	for _, layout := range layouts {
		for i := range int(layout) {
			names = append(names, layout.ShardName(dispatcher, i))
		}
	}
	return names
}

// ShardOf is Layout.ShardOf of a Small table.
func ShardOf(identity string) int { return Small.ShardOf(identity) }

// ShardName is Layout.ShardName of a Small table.
func ShardName(dispatcher string, i int) string { return Small.ShardName(dispatcher, i) }
