package egress

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds what an endpoint may ask for. The retry policy's own limits are far below.
const maxRetryAfter = 30 * 24 * time.Hour

// retryAfter reads a Retry-After: seconds, or an HTTP date (RFC 9110, section 10.2.3), which is taken relative to now.
// It returns 0 for what is neither, or past.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || seconds > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter // an error can only be that it is too large
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}
