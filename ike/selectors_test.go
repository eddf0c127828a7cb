package ike

import (
	"net/netip"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// TestNarrowCrosswise: ranges that overlap crosswise have an intersection for each pair.
// A peer gets no more than a payload can tell.
func TestNarrowCrosswise(t *testing.T) {
	var offered, allowed []esp.Selector
	for i := range message.MaxSelectors {
		low, high := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		offered = append(offered, esp.Selector{EndPort: 65535, Start: low, End: netip.MustParseAddr("10.0.2.0")})
		allowed = append(allowed, esp.Selector{EndPort: 65535, Start: netip.MustParseAddr("9.0.0.0"), End: high})
	}
	out := narrow(offered, allowed)
	if len(out) != message.MaxSelectors {
		t.Errorf("%d selectors, want %d", len(out), message.MaxSelectors)
	}
	if !within(out, offered) || !within(out, allowed) {
		t.Error("not all lie inside what was offered and allowed")
	}
}
