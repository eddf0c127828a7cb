package xfrm

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// matches is what the kernel does with a selector.
func (s selector) matches(src, dst netip.Addr, proto uint8, sport, dport uint16) bool {
	return s.src.Contains(src) && s.dst.Contains(dst) && (s.protocol == 0 || s.protocol == proto) &&
		(sport^s.sport)&s.sportMask == 0 && (dport^s.dport)&s.dportMask == 0
}

func inRange(s esp.Selector, a netip.Addr, proto uint8, port uint16) bool {
	return !a.Less(s.Start) && !s.End.Less(a) && (s.Protocol == 0 || s.Protocol == proto) && s.StartPort <= port && port <= s.EndPort
}

func addr(t *rapid.T, label string) netip.Addr {
	b := [4]byte{10, 0, 0, byte(rapid.IntRange(0, 40).Draw(t, label))}
	return netip.AddrFrom4(b)
}

func drawSelector(t *rapid.T, side string) esp.Selector {
	s := esp.Selector{Start: addr(t, side+" start"), End: addr(t, side+" end"), Protocol: rapid.SampledFrom([]uint8{0, 6, 17}).Draw(t, side+" protocol")}
	if s.End.Less(s.Start) {
		s.Start, s.End = s.End, s.Start
	}
	a, b := rapid.Uint16().Draw(t, side+" port"), rapid.Uint16().Draw(t, side+" last port")
	s.StartPort, s.EndPort = min(a, b), max(a, b)
	if s.StartPort == 65535 {
		s.StartPort = 0
	}
	return s
}

// TestSelectorsSayTheSame: the kernel's selectors match the packets that the traffic
// selectors do, and no others.
func TestSelectorsSayTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, r := drawSelector(t, "local"), drawSelector(t, "remote")
		list, err := selectorsOf([]esp.Selector{l}, []esp.Selector{r})
		if err != nil {
			return // too many
		}
		port := rapid.OneOf(rapid.Uint16(), rapid.SampledFrom([]uint16{l.StartPort, l.EndPort, r.StartPort, r.EndPort, l.EndPort + 1, r.StartPort - 1}))
		for range 20 {
			src, dst := addr(t, "src"), addr(t, "dst")
			proto := rapid.SampledFrom([]uint8{6, 17}).Draw(t, "protocol")
			sport, dport := port.Draw(t, "sport"), port.Draw(t, "dport")
			want := inRange(l, src, proto, sport) && inRange(r, dst, proto, dport)
			n := 0
			for _, s := range list {
				if s.matches(src, dst, proto, sport, dport) {
					n++
				}
			}
			if (n == 1) != want || n > 1 {
				t.Fatalf("%d of %d selectors match %v:%d to %v:%d, protocol %d; want %v", n, len(list), src, sport, dst, dport, proto, want)
			}
		}
	})
}

func TestSelectors(t *testing.T) {
	any4, any6 := prefix("0.0.0.0/0")[0], prefix("::/0")[0]
	list, err := selectorsOf([]esp.Selector{any4, any6}, []esp.Selector{prefix("10.66.0.2/32")[0], prefix("fd66::2/128")[0]})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	if list[0].covers(list[1]) || !list[0].covers(list[0]) {
		t.Error("covers")
	}
	if _, err := selectorsOf([]esp.Selector{any4}, []esp.Selector{any6}); err == nil {
		t.Error("two families have something in common")
	}
	narrow := selector{src: list[0].src, dst: list[0].dst, protocol: 6, dport: 80, dportMask: 0xffff}
	if !list[0].covers(narrow) || narrow.covers(list[0]) || narrow.priority() >= list[0].priority() {
		t.Errorf("%v and %v", narrow, list[0])
	}
	if list[0].reversed().reversed() != list[0] || list[0].reversed().src != list[0].dst {
		t.Error("reversed")
	}
}
