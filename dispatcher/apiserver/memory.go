package apiserver

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
)

// What an answer holds in memory at most, in bytes: as records, as objects and as JSON.
const (
	listedBytes = 3 << 10  // of each object of a list
	objectBytes = 64 << 10 // of one with its attempts
	// payloadCopies of an event's JSON are held while its payload is written.
	payloadCopies = 3
)

// charge takes the memory of the answer to a call, and returns what gives it back. It leaves a quarter of the budget to those
// who publish.
func (s *Server) charge(c *call) (give func(), err error) {
	if s.options.Memory == nil {
		return func() {}, nil
	}
	n := int64(objectBytes)
	switch {
	case c.Verb == "watch":
		n = initialPage * listedBytes
	case c.Verb == "list":
		n = int64(c.query.limit) * listedBytes
	case c.Subresource == v1alpha1.SubresourcePayload && s.options.MaxEventBytes != nil:
		n += payloadCopies * int64(s.options.MaxEventBytes())
	}
	if !s.options.Memory.TakeSpare(c.tenant, n, s.options.Memory.Limit()/4*3) {
		return nil, apierrors.NewTooManyRequests("the namespace's share of this dispatcher's memory is in use; try again, or ask for fewer at once", 1)
	}
	return func() { s.options.Memory.Give(c.tenant, n) }, nil
}
