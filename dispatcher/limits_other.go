//go:build !unix

package dispatcher

import "math"

// maxDescriptors is unlimited where there is no such limit.
func maxDescriptors() int64 { return math.MaxInt64 }
