package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Reach is where a target's deliveries go beside what all may reach.
type Reach struct {
	// Rules are where this tenant's deliveries may go.
	Rules []Rule
	// Fixed are the addresses of the URL's host and port, if there are any: these alone are dialled, and no name is looked up.
	// They need no rule. What is denied whatever allows it is denied here, too, and so is loopback.
	Fixed []netip.Addr
}

// fixed is Reach.Fixed as the dialler wants it.
type fixed struct {
	addresses []netip.AddrPort
	rules     []Rule // that allow these addresses at this port, and nothing else
}

func (f *fixed) all() []netip.AddrPort {
	if f == nil {
		return nil
	}
	return f.addresses
}

// reach takes over what r says. The address is known.
func (p *preparedTarget) reach(r *Reach) (err error) {
	if r == nil {
		return nil
	}
	if p.rules, err = checkedRules(r.Rules); err != nil || len(r.Fixed) == 0 {
		return err
	}
	_, portText, err := net.SplitHostPort(p.address)
	if err != nil {
		return errors.New("the URL's host and port cannot be told apart")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return errors.New("the URL's port is not a number from 1 to 65535")
	}
	p.fixed = &fixed{}
	rule := Rule{Ports: []uint16{uint16(port)}}
	for _, address := range r.Fixed {
		address = address.Unmap().WithZone("")
		if !address.IsValid() || slices.ContainsFunc(faces(address), netip.Addr.IsLoopback) {
			return errors.New("a fixed address is none, or is loopback")
		}
		p.fixed.addresses = append(p.fixed.addresses, netip.AddrPortFrom(address, uint16(port)))
		rule.Prefixes = append(rule.Prefixes, netip.PrefixFrom(address, address.BitLen()))
	}
	p.fixed.rules = []Rule{rule}
	return nil
}

// dialRules are those that a connection for the target is judged by.
func (p *preparedTarget) dialRules() []Rule {
	if p.fixed != nil {
		return p.fixed.rules
	}
	return p.rules
}

// checkedRules returns the rules with prefixes as the guard compares them.
func checkedRules(rules []Rule) ([]Rule, error) {
	checked := make([]Rule, 0, len(rules))
	for _, rule := range rules {
		prefixes, err := unmappedAll(rule.Prefixes)
		if err != nil {
			return nil, fmt.Errorf("the CIDR of a rule: %w", err)
		}
		checked = append(checked, Rule{Prefixes: prefixes, Ports: rule.Ports})
	}
	return checked, nil
}
