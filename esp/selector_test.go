package esp

import (
	"fmt"
	"net/netip"
	"testing"
)

func addrRange(start, end string) Selector {
	return Selector{Start: netip.MustParseAddr(start), End: netip.MustParseAddr(end), EndPort: 65535}
}

func prefixSel(p string) Selector { return PrefixSelector(netip.MustParsePrefix(p)) }

func withPorts(s Selector, proto uint8, start, end uint16) Selector {
	s.Protocol, s.StartPort, s.EndPort = proto, start, end
	return s
}

func parsed(t testing.TB, pkt []byte) *Inner {
	t.Helper()
	p := new(Inner)
	if err := p.Parse(pkt); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRangesSplitIntoPrefixes(t *testing.T) {
	for _, v := range []struct{ start, end, want string }{
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[::/0]"},
		{"10.0.0.0", "10.0.0.255", "[10.0.0.0/24]"},
		{"10.0.0.1", "10.0.0.1", "[10.0.0.1/32]"},
		{"10.0.0.1", "10.0.0.6", "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32]"},
		{"255.255.255.254", "255.255.255.255", "[255.255.255.254/31]"},
		{"fd00::", "fd00::1:ffff", "[fd00::/111]"},
	} {
		if got := fmt.Sprint(addrRange(v.start, v.end).prefixes()); got != v.want {
			t.Errorf("%s-%s: %s, want %s", v.start, v.end, got, v.want)
		}
	}
	if n := len(addrRange("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").prefixes()); n != 254 {
		t.Errorf("the worst IPv6 range makes %d prefixes, want 254", n)
	}
	if p := addrRange("10.0.0.2", "10.0.0.1").prefixes(); p != nil {
		t.Errorf("reversed range made %v", p)
	}
}

func TestSelectorsMatch(t *testing.T) {
	any4 := prefixSel("0.0.0.0/0")
	udp := v4Packet(17, "10.0.0.1", "192.0.2.1", 0, udp53...)
	later := v4Packet(17, "10.0.0.1", "192.0.2.1", 3, udp53...)
	echo := v4Packet(1, "10.0.0.1", "192.0.2.1", 0, 8, 0, 0, 0)
	tcp6 := v6Packet(6, "fd00::1", "fd01::1", 0, 80, 1, 187)
	for _, v := range []struct {
		name          string
		local, remote Selector
		pkt           []byte
		want          bool
	}{
		{"any", any4, any4, udp, true},
		{"other family", prefixSel("::/0"), any4, udp, false},
		{"source outside", prefixSel("10.0.1.0/24"), any4, udp, false},
		{"destination outside", any4, prefixSel("192.0.2.128/25"), udp, false},
		{"edges of a range", addrRange("10.0.0.1", "10.0.0.1"), addrRange("192.0.2.0", "192.0.2.1"), udp, true},
		{"protocol", any4, withPorts(any4, 17, 0, 65535), udp, true},
		{"other protocol", any4, withPorts(any4, 6, 0, 65535), udp, false},
		{"port", any4, withPorts(any4, 17, 53, 53), udp, true},
		{"source port", withPorts(any4, 17, 12345, 12345), any4, udp, true},
		{"other port", any4, withPorts(any4, 17, 54, 60), udp, false},
		{"port of a later fragment", any4, withPorts(any4, 17, 53, 53), later, false},
		{"any port covers opaque", any4, withPorts(any4, 17, 0, 65535), later, true},
		{"opaque takes a later fragment", any4, withPorts(any4, 17, 65535, 0), later, true},
		{"opaque refuses a visible port", any4, withPorts(any4, 17, 65535, 0), udp, false},
		{"icmp type and code", any4, withPorts(any4, 1, 8<<8, 8<<8|255), echo, true},
		{"other icmp type", any4, withPorts(any4, 1, 0, 255), echo, false},
		{"v6", prefixSel("fd00::/16"), prefixSel("fd01::/16"), tcp6, true},
		{"v6 port", prefixSel("fd00::/16"), withPorts(prefixSel("fd01::/16"), 6, 443, 443), tcp6, true},
		{"v6 outside", prefixSel("fd00::/16"), prefixSel("fd02::/16"), tcp6, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			s, err := NewSelectors([]Selector{v.local}, []Selector{v.remote})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Outbound(parsed(t, v.pkt)); got != v.want {
				t.Errorf("outbound %v", got)
			}
			// The mirrored SA must see the same packet as inbound.
			mirror, err := NewSelectors([]Selector{v.remote}, []Selector{v.local})
			if err != nil {
				t.Fatal(err)
			}
			if got := mirror.Inbound(parsed(t, v.pkt)); got != v.want {
				t.Errorf("inbound %v", got)
			}
		})
	}
}

func TestSelectorsAreChecked(t *testing.T) {
	good := []Selector{prefixSel("10.0.0.0/8")}
	for name, bad := range map[string][]Selector{
		"none":       nil,
		"no address": {{}},
		"mixed":      {{Start: netip.MustParseAddr("10.0.0.1"), End: netip.MustParseAddr("fd00::1"), EndPort: 65535}},
		"mapped":     {{Start: netip.MustParseAddr("::ffff:10.0.0.1"), End: netip.MustParseAddr("::ffff:10.0.0.1"), EndPort: 65535}},
		"reversed":   {addrRange("10.0.0.2", "10.0.0.1")},
		"ports":      {withPorts(good[0], 6, 10, 9)},
	} {
		if _, err := NewSelectors(good, bad); err == nil {
			t.Errorf("%s: accepted as remote", name)
		}
		if _, err := NewSelectors(bad, good); err == nil {
			t.Errorf("%s: accepted as local", name)
		}
	}
}

func TestSelectorString(t *testing.T) {
	for want, s := range map[string]Selector{
		"10.0.0.0/24":                       prefixSel("10.0.0.0/24"),
		"10.0.0.1-10.0.0.2":                 addrRange("10.0.0.1", "10.0.0.2"),
		"10.0.0.1/32 protocol 17":           withPorts(prefixSel("10.0.0.1/32"), 17, 0, 65535),
		"fd00::/8 protocol 6 ports 80-81":   withPorts(prefixSel("fd00::/8"), 6, 80, 81),
		"0.0.0.0/0 protocol 6 port opaque":  withPorts(prefixSel("0.0.0.0/0"), 6, 65535, 0),
		"10.0.0.1/32 protocol 17 port 53":   withPorts(prefixSel("10.0.0.1/32"), 17, 53, 53),
		"10.0.0.1-10.0.0.2 ports 1000-2000": withPorts(addrRange("10.0.0.1", "10.0.0.2"), 0, 1000, 2000),
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// spdTest inserts children named by strings.
type spdTest struct {
	t   *testing.T
	spd SPD[string]
}

func (s *spdTest) insert(name string, host HostID, remote ...Selector) {
	s.t.Helper()
	sel, err := NewSelectors([]Selector{prefixSel("0.0.0.0/0"), prefixSel("::/0")}, remote)
	if err != nil {
		s.t.Fatal(err)
	}
	s.spd.Insert(name, host, sel, remote)
}

func (s *spdTest) expect(dst, want string) {
	s.t.Helper()
	pkt := v4Packet(17, "10.0.0.1", "10.0.0.1", 0, udp53...)
	if a := netip.MustParseAddr(dst); a.Is6() {
		pkt = v6Packet(17, "fd00::1", dst, udp53...)
	} else {
		copy(pkt[16:], a.AsSlice())
	}
	if got, _ := s.spd.Lookup(parsed(s.t, pkt)); got != want {
		s.t.Errorf("to %s: %q, want %q", dst, got, want)
	}
}

func TestSPD(t *testing.T) {
	s := &spdTest{t: t}
	s.expect("10.0.0.5", "")
	s.insert("all", 1, prefixSel("0.0.0.0/0"))
	s.insert("lan", 2, prefixSel("10.0.0.0/24"), prefixSel("fd00::/64"))
	s.insert("one", 3, addrRange("10.0.0.4", "10.0.0.6"))
	s.expect("10.0.0.5", "one")
	s.expect("10.0.0.7", "lan")
	s.expect("192.0.2.1", "all")
	s.expect("fd00::1", "lan")
	s.expect("fd00:1::1", "")

	generation := s.spd.Generation()
	s.insert("one again", 3, addrRange("10.0.0.4", "10.0.0.6"))
	if s.spd.Generation() == generation {
		t.Error("the generation did not move")
	}
	s.expect("10.0.0.5", "one again")
	s.spd.Remove("one again", []Selector{addrRange("10.0.0.4", "10.0.0.6")})
	s.expect("10.0.0.5", "one")
	s.insert("one again", 3, addrRange("10.0.0.4", "10.0.0.6"))
	s.insert("one", 3, addrRange("10.0.0.4", "10.0.0.6")) // activated once more
	s.expect("10.0.0.5", "one")

	// The last child of a host wins also when its selectors are wider ...
	s.insert("wide", 3, prefixSel("10.0.0.0/8"))
	s.expect("10.0.0.5", "wide")
	s.expect("10.0.1.5", "wide")
	// ... but does not take what belongs to another host.
	s.expect("10.0.0.7", "lan")
}

func TestSPDSelectsByPort(t *testing.T) {
	s := &spdTest{t: t}
	s.insert("rest", 1, prefixSel("0.0.0.0/0"))
	s.insert("dns", 1, withPorts(prefixSel("0.0.0.0/0"), 17, 53, 53))
	s.expect("192.0.2.1", "dns")
	s.insert("web", 2, withPorts(prefixSel("192.0.2.1/32"), 6, 443, 443))
	s.expect("192.0.2.1", "dns") // the longer prefix does not cover the packet
	s.spd.Remove("dns", []Selector{withPorts(prefixSel("0.0.0.0/0"), 17, 53, 53)})
	s.expect("192.0.2.1", "rest")
}

func TestSPDManyHosts(t *testing.T) {
	s := &spdTest{t: t}
	addr := netip.MustParseAddr("10.0.0.0")
	var names []string
	for i := range 2000 {
		names = append(names, addr.String())
		s.insert(addr.String(), HostID(i), PrefixSelector(netip.PrefixFrom(addr, 32)))
		addr = addr.Next()
	}
	for _, n := range names {
		s.expect(n, n)
	}
	for _, n := range names {
		s.spd.Remove(n, []Selector{prefixSel(n + "/32")})
		s.expect(n, "")
	}
	if size := s.spd.addresses.size(); size != 0 {
		t.Errorf("%d addresses left over", size)
	}
}

// An address of one family never stands for one of the other.
func TestSPDKeepsFamiliesApart(t *testing.T) {
	s := &spdTest{t: t}
	s.insert("four", 1, prefixSel("10.0.0.7/32"))
	s.insert("six", 2, prefixSel("::a00:8/128"))
	s.expect("10.0.0.7", "four")
	s.expect("::a00:7", "")
	s.expect("::ffff:10.0.0.7", "")
	s.expect("10.0.0.8", "")
	s.expect("::a00:8", "six")
}

// A network of a host and an address of its own count as one host, an address of
// another comes first.
func TestSPDAddressesWithinNetworks(t *testing.T) {
	s := &spdTest{t: t}
	s.insert("network", 1, prefixSel("10.0.0.0/24"))
	s.insert("its own", 1, prefixSel("10.0.0.7/32"))
	s.insert("other", 2, prefixSel("10.0.0.8/32"))
	s.insert("elsewhere", 3, prefixSel("10.1.0.0/24"))
	s.expect("10.0.0.7", "its own")
	s.expect("10.0.0.8", "other")
	s.insert("network", 1, prefixSel("10.0.0.0/24")) // later than its own address
	s.expect("10.0.0.7", "network")
	s.expect("10.0.0.8", "other")
	s.spd.Remove("network", []Selector{prefixSel("10.0.0.0/24")})
	s.spd.Remove("elsewhere", []Selector{prefixSel("10.1.0.0/24")})
	s.expect("10.0.0.7", "its own")
	s.expect("10.0.0.9", "")
	if s.spd.networks.Load() != nil {
		t.Error("an empty prefix table is kept, and looked at for each packet")
	}
}

// Selectors that are narrower than the prefix, in any way, are asked.
func TestSPDAsksNarrowSelectors(t *testing.T) {
	to := prefixSel("10.0.0.7/32")
	for name, sel := range map[string][2]Selector{
		"everything": {prefixSel("0.0.0.0/0"), to},
		"source":     {prefixSel("192.0.2.0/24"), to},
		"family":     {prefixSel("::/0"), to},
		"protocol":   {prefixSel("0.0.0.0/0"), withPorts(to, 6, 0, 65535)},
		"ports":      {prefixSel("0.0.0.0/0"), withPorts(to, 17, 1, 52)},
		"own ports":  {withPorts(prefixSel("0.0.0.0/0"), 17, 1, 52), to},
		"opaque":     {prefixSel("0.0.0.0/0"), withPorts(to, 0, 65535, 0)},
	} {
		var d SPD[string]
		compiled, err := NewSelectors([]Selector{sel[0]}, []Selector{sel[1]})
		if err != nil {
			t.Fatal(err)
		}
		d.Insert("sa", 1, compiled, []Selector{sel[1]})
		_, ok := d.Lookup(parsed(t, v4Packet(17, "10.0.0.1", "10.0.0.7", 0, udp53...)))
		if want := name == "everything"; ok != want {
			t.Errorf("%s: found %v, want %v", name, ok, want)
		}
	}
}

func TestSAD(t *testing.T) {
	var d SAD[int]
	for i := range 3000 {
		if err := d.Insert(uint32(i*7), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Insert(7, 99); err == nil {
		t.Error("an spi was given twice")
	}
	for i := range 3000 {
		if v, ok := d.Lookup(uint32(i * 7)); !ok || v != i {
			t.Fatalf("spi %d: %d %v", i*7, v, ok)
		}
	}
	d.Remove(7)
	if _, ok := d.Lookup(7); ok {
		t.Error("removed spi is still there")
	}
	if err := d.Insert(7, 99); err != nil {
		t.Errorf("free spi refused: %v", err)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s := &spdTest{t: t}
	s.insert("all", 1, prefixSel("0.0.0.0/0"))
	s.insert("lan", 2, prefixSel("10.0.0.0/24"))
	var sad SAD[string]
	sad.Insert(0x123456, "sa")
	pkt := v4Packet(17, "10.0.0.1", "10.0.0.7", 0, udp53...)
	var p Inner
	if n := testing.AllocsPerRun(100, func() {
		if p.Parse(pkt) != nil {
			t.Fatal("parse")
		}
		if v, _ := s.spd.Lookup(&p); v != "lan" {
			t.Fatal(v)
		}
		if v, _ := sad.Lookup(0x123456); v != "sa" {
			t.Fatal(v)
		}
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}
