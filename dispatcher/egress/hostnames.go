package egress

import (
	"errors"
	"net"
	"net/netip"
	"strings"
)

// Hosts are names of hosts in lower case, as they stand in URLs: hooks.example.com, or *.example.com for all names that end so.
type Hosts []string

// Have reports whether a host is one of them. An IP address is one only if it is written as a whole.
func (h Hosts) Have(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, err := netip.ParseAddr(host)
	isAddress := err == nil
	for _, name := range h {
		suffix, wildcard := strings.CutPrefix(name, "*")
		switch {
		case !wildcard && host == name:
			return true
		case wildcard && !isAddress && len(host) > len(suffix) && strings.HasSuffix(host, suffix):
			return true
		}
	}
	return false
}

// HostOf is the host of a URL as it is looked up: without a port, and in ASCII. Its error shows nothing of the URL.
func HostOf(text string) (string, error) {
	u, err := parseURL(text)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(addressOf(u))
	if err != nil {
		return "", errors.New("the URL's host and port cannot be told apart")
	}
	return host, nil
}
