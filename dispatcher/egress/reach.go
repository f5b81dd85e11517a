package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Reach is where a target's deliveries go beside what all may reach.
type Reach struct {
	// Rules are where this tenant's deliveries may go.
	Rules []Rule
	// Within are lists of hosts: each must have the host of what is asked for, but for that of Fixed.
	Within []Hosts
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
	p.terms = &terms{within: r.Within}
	if p.terms.rules, err = checkedRules(r.Rules); err != nil {
		return err
	}
	if len(r.Fixed) > 0 {
		return p.fix(r.Fixed)
	}
	return p.bound()
}

// terms are what hold for all that a target asks for, also beside its URL; nil where there are none.
type terms struct {
	rules  []Rule
	within []Hosts
}

// bound takes up the rules that hold for the host, or returns a failure if it is not one that the target may reach.
func (p *preparedTarget) bound() error {
	if p.terms == nil {
		return nil
	}
	for _, hosts := range p.terms.within {
		if !hosts.Have(p.host) {
			return &failure{reason: delivery.ReasonHostNotAllowed, err: errors.New("the host is not allowed")}
		}
	}
	p.rules = nil
	for _, rule := range p.terms.rules {
		if len(rule.Hosts) == 0 || rule.Hosts.Have(p.host) {
			p.rules = append(p.rules, rule)
		}
	}
	return nil
}

// fix takes over the addresses to dial.
func (p *preparedTarget) fix(all []netip.Addr) error {
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
	for _, address := range all {
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
		checked = append(checked, Rule{Hosts: rule.Hosts, Prefixes: prefixes, Ports: rule.Ports})
	}
	return checked, nil
}
