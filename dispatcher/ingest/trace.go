package ingest

import "strings"

// Lengths of a W3C traceparent, version 00: version-traceid-parentid-flags.
const (
	traceparentLength = 55
	traceIDEnd        = 35
	parentIDEnd       = 52
)

// traceparent returns the trace context that values hold if it is a valid one (W3C Trace Context, section 3.2.2), else
// "": a receiver of a broken one has to act as if there was none.
func traceparent(values []string) string {
	if len(values) != 1 {
		return ""
	}
	v := values[0]
	if len(v) < traceparentLength || len(v) > 4*traceparentLength || v[2] != '-' || v[traceIDEnd] != '-' || v[parentIDEnd] != '-' {
		return ""
	}
	version, traceID, parentID, flags := v[:2], v[3:traceIDEnd], v[traceIDEnd+1:parentIDEnd], v[parentIDEnd+1:traceparentLength]
	if !isLowerHex(version) || !isLowerHex(traceID) || !isLowerHex(parentID) || !isLowerHex(flags) {
		return ""
	}
	if version == "ff" || strings.Trim(traceID, "0") == "" || strings.Trim(parentID, "0") == "" {
		return ""
	}
	// A later version may be longer, behind another dash; its first four fields are as here.
	if len(v) > traceparentLength && (version == "00" || v[traceparentLength] != '-') {
		return ""
	}
	return v[:traceparentLength]
}

func isLowerHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
