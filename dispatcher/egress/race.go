package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// interleave orders addresses as RFC 8305, section 4, says: families by turns, beginning with that of the first, and
// within a family as they were.
func interleave(addresses []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, address := range addresses {
		if address.Is4() == addresses[0].Is4() {
			first = append(first, address)
		} else {
			second = append(second, address)
		}
	}
	ordered := make([]netip.Addr, 0, len(addresses))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ordered = append(ordered, first[i])
		}
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	return ordered
}

// dialled is what came of dialling one address.
type dialled struct {
	wire *wire
	err  error
}

// race connects to the first of the addresses that answers (RFC 8305, section 5): each gets addressDelay before the next
// is dialled beside it, and none if it fails before. The others are given up. An error is that of the first address that
// failed by itself, or else that the guard refused.
func race(ctx context.Context, addresses []netip.AddrPort, dial dialOne) (*wire, error) {
	if len(addresses) == 1 {
		one := dial.one(ctx, addresses[0])
		return one.wire, one.err
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialled, len(addresses))
	started, finished := 0, 0
	defer func() {
		cancel()
		for ; finished < started; finished++ { // none outlives the race: a dial ends with its context
			if late := <-results; late.wire != nil {
				_ = late.wire.Close()
			}
		}
	}()
	limit := shareOf(ctx, len(addresses))
	next := time.NewTimer(0)
	defer next.Stop()
	var failed error
	for finished < len(addresses) {
		select {
		case <-next.C:
			if started == len(addresses) {
				continue
			}
			address := addresses[started]
			started++
			next.Reset(addressDelay)
			go func() {
				ctx, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				results <- dial.one(ctx, address)
			}()
		case result := <-results:
			finished++
			if result.err == nil {
				return result.wire, nil
			}
			if failed == nil || isRefused(failed) {
				failed = result.err
			}
			next.Reset(0)
		}
	}
	return nil, failed
}

// dialOne connects to one address, if it is allowed.
type dialOne func(ctx context.Context, address netip.AddrPort) (net.Conn, error)

// one dials one address.
func (dial dialOne) one(ctx context.Context, address netip.AddrPort) dialled {
	c, err := dial(ctx, address)
	if err != nil {
		return dialled{err: err}
	}
	return dialled{wire: newWire(c)}
}

// shareOf is how long each of n addresses may take of what ctx has left.
func shareOf(ctx context.Context, n int) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return minAddressTime
	}
	return max(time.Until(deadline)/time.Duration(n), minAddressTime)
}

// isRefused reports whether the guard refused an address.
func isRefused(err error) bool {
	return errors.Is(err, errAddressNotAllowed) || errors.Is(err, errPortNotAllowed)
}
