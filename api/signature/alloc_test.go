//go:build !race

// The race detector makes pools forget at random, so allocations are counted without it.

package signature

import (
	"bytes"
	"net/http"
	"testing"
	"time"
)

func TestHeaderAllocations(t *testing.T) {
	keys := mustParse(t, knownKey, oldKey)
	pair := mustParse(t, knownKey, pairPrivate)
	h := http.Header{}
	body := bytes.Repeat([]byte("x"), 1024)
	at := time.Unix(knownTime, 0)
	if got := testing.AllocsPerRun(100, func() { keys.Header(h, "dlv_1", at, body) }); got > 2 {
		t.Errorf("%v allocations, want at most 2: the text and the values", got)
	}
	if got := testing.AllocsPerRun(100, func() { pair.Header(h, "dlv_1", at, body) }); got > 4 {
		t.Errorf("with a pair: %v allocations, want at most 4: the signature and the buffer's place as well", got)
	}
}
