package egress

import (
	"bytes"
	"io"
	"log"
	"sync"
)

// http.Transport prints the first bytes that a server sends on an idle connection, unasked, to the standard logger of
// package log, and knows no switch for it. They may repeat a payload, or be made up to look like a log line, so that
// one message is taken out of the standard logger's output.
var unsolicited = []byte("Unsolicited response received on idle HTTP channel")

// discreetWriter drops what an endpoint wrote.
type discreetWriter struct{ next io.Writer }

func (w discreetWriter) Write(line []byte) (int, error) {
	if bytes.Contains(line, unsolicited) {
		return len(line), nil
	}
	return w.next.Write(line)
}

// quieten makes the standard logger discreet.
var quieten = sync.OnceFunc(func() { log.SetOutput(discreetWriter{log.Writer()}) })
