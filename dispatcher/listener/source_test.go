package listener_test

import (
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/listener"
)

func TestSource(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1:1234":               "192.0.2.1",
		"[::ffff:192.0.2.1]:1234":      "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1":     "2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:2":          "2001:db8:1:2::/64",
		"[fe80::1%eth0]:2":             "fe80::/64",
		"@":                            "@",
		"":                             "",
		"[2001:db8:1:3:ffff::1]:65535": "2001:db8:1:3::/64",
	} {
		if got := listener.Source(address); got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
}
