package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// bodySize is how long a delivered body is.
const bodySize = 1024

// idLength is the length of every id: all bodies are of one size, and an id is patched in place.
const idLength = 3 + 1 + 9 + 1 + 19

// identity is what an event's id says: the run, the event's number in it, and when it was to be published. So the
// receiver knows an event's age without asking anyone.
type identity struct {
	run, number int
	sent        time.Time
}

// appendID appends the id: run-number-nanoseconds, each padded.
func appendID(b []byte, id identity) []byte {
	b = appendPadded(b, int64(id.run), 3)
	b = appendPadded(append(b, '-'), int64(id.number), 9)
	return appendPadded(append(b, '-'), id.sent.UnixNano(), 19)
}

func appendPadded(b []byte, n int64, width int) []byte {
	end := len(b) + width
	b = append(b, "0000000000000000000"[:width]...)
	for i := end - 1; n > 0 && i >= end-width; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// parseID reads an id back.
func parseID(b []byte) (id identity, ok bool) {
	if len(b) != idLength || b[3] != '-' || b[13] != '-' {
		return id, false
	}
	run, ok1 := number(b[:3])
	n, ok2 := number(b[4:13])
	nanos, ok3 := number(b[14:])
	return identity{run: int(run), number: int(n), sent: time.Unix(0, nanos)}, ok1 && ok2 && ok3
}

func number(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0
}

// idOf returns the id that a delivered body begins with.
func idOf(body []byte) (identity, bool) {
	rest, ok := bytes.CutPrefix(body, idPrefix)
	if !ok || len(rest) < idLength {
		return identity{}, false
	}
	return parseID(rest[:idLength])
}

var idPrefix = []byte(`{"id":"`)

// eventType is that of all events.
const eventType event.Type = "observation.created"

// data is what an EHR sends for a lab value, with a note that makes the delivered body bodySize bytes long.
var data = func() []byte {
	overhead := len(event.AppendBody(nil, string(make([]byte, idLength)), eventType, time.Now(), fmt.Appendf(nil, dataFormat, "")))
	return fmt.Appendf(nil, dataFormat, bytes.Repeat([]byte("x"), bodySize-overhead))
}()

const dataFormat = `{"resourceType":"observation","resourceId":"obs_8f2c1a","action":"created","tenantId":"org_def456",` +
	`"status":"final","category":"laboratory","code":{"system":"http://loinc.org","code":"2345-7","display":"Glucose [Mass/volume] in Serum or Plasma"},` +
	`"subject":{"reference":"Patient/pt_abc123"},"encounter":{"reference":"Encounter/enc_77aa"},"effective":"2026-01-15T09:14:31Z",` +
	`"value":{"quantity":182.4,"unit":"mg/dL"},"referenceRange":[{"low":70,"high":99}],"interpretation":["H"],"note":"%s"}`

// delivered returns a delivered body, for the raw loop.
func delivered(id identity) []byte {
	return event.AppendBody(make([]byte, 0, bodySize), string(appendID(nil, id)), eventType, id.sent, data)
}

// post is how events are published: where to, by whom, and with which data.
type post struct {
	namespace, token string
	data             []byte
}

// appendEvent appends the event as a producer sends it.
func (p post) appendEvent(b []byte, id identity) []byte {
	b = append(b, idPrefix...)
	b = appendID(b, id)
	b = append(b, `","type":"`...)
	b = append(b, eventType...)
	b = append(b, `","data":`...)
	return append(append(b, p.data...), '}')
}

// append appends a request that publishes the given events.
func (p post) append(b []byte, ids []identity, batch bool) []byte {
	b = append(b, "POST /v1/namespaces/"...)
	b = append(b, p.namespace...)
	b = append(b, "/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"...)
	if p.token != "" {
		b = append(b, "Authorization: Bearer "...)
		b = append(append(b, p.token...), "\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	size := len(ids) * (eventOverhead + len(p.data))
	if batch {
		size += len(ids) + 1
	}
	b = append(strconv.AppendInt(b, int64(size), 10), "\r\n\r\n"...)
	for i, id := range ids {
		if batch {
			b = append(b, "[,"[min(i, 1)])
		}
		b = p.appendEvent(b, id)
	}
	if batch {
		b = append(b, ']')
	}
	return b
}

// eventOverhead is what a published event has around its data.
var eventOverhead = len(post{}.appendEvent(nil, identity{}))

// dataOf returns data that makes a delivered body about size bytes long, and that no store can compress by much.
func dataOf(size int) []byte {
	random := rand.NewChaCha8([32]byte{}) // the same in each run
	note := make([]byte, max(0, size-len(dataFormat)))
	_, _ = random.Read(note)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i, b := range note {
		note[i] = alphabet[b%64]
	}
	return fmt.Appendf(nil, dataFormat, note)
}
