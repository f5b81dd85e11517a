package ingest

import (
	"errors"
	"io"
	"net/http"
)

// maxStrangersRest is how much is read of what a client sends behind a token that is not good.
const maxStrangersRest = 256 << 10

// discard reads on for a bounded while, so that a client that writes its whole request before it reads sees the answer p
// instead of a broken connection. It reports whether it has seen the end.
func (h *Handler) discard(w http.ResponseWriter, r *http.Request, p *problem) (done bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return true
	}
	if r.Header.Get("Expect") != "" {
		return false // the client waits for a word before it sends, and gets the answer instead
	}
	if p.header["Connection"] == "close" {
		return false
	}
	limit := int64(maxRequestBytes)
	if p.kind == unauthenticated || p.kind == forbidden {
		limit = maxStrangersRest
	}
	body, under := r.Body.(*upload)
	if !under {
		body = h.uploads.paced(w, r.Body, discardTime)
	}
	n, err := io.CopyN(io.Discard, body, limit+1)
	return errors.Is(err, io.EOF) && n <= limit
}
