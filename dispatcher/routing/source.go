package routing

import "context"

// Source keeps a dispatcher's table current. Packages folder and cluster hold the two there are.
type Source interface {
	// Run calls deliver with each new table, one after the other, the first as soon as there is a complete one. It
	// retries whatever fails, and returns nil once ctx has ended and all that it started has.
	Run(ctx context.Context, deliver func(*Table)) error
}
