package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestDump(t *testing.T) {
	other := errors.New("another error")
	for _, tt := range []struct {
		name  string
		fails int // how often
		with  error
		calls int
		want  error
	}{
		{"at once", 0, nil, 1, nil},
		{"disturbed", 3, netlink.ErrDumpInterrupted, 4, nil},
		{"disturbed, as the lower layer says it", 2, fmt.Errorf("list: %w", nl.ErrDumpInterrupted), 3, nil},
		{"disturbed for ever", 1000, netlink.ErrDumpInterrupted, tries, netlink.ErrDumpInterrupted},
		{"another error", 1, other, 1, other},
	} {
		calls := 0
		_, err := Dump(func() ([]int, error) {
			calls++
			if calls <= tt.fails {
				return nil, tt.with
			}
			return []int{1}, nil
		})
		if calls != tt.calls || !errors.Is(err, tt.want) {
			t.Errorf("%s: %d calls, %v", tt.name, calls, err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for text, masked := range map[string]string{
		"192.0.2.7/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "2001:db8::7/64": "2001:db8::/64", "::/0": "::/0", "10.0.0.1/32": "10.0.0.1/32",
	} {
		p := netip.MustParsePrefix(text)
		n := IPNet(p)
		if n.String() != masked || PrefixOf(n) != p.Masked() {
			t.Errorf("%s: %s, back %s", text, n, PrefixOf(n))
		}
		n.IP = p.Addr().AsSlice()
		if PrefixOf(n) != p {
			t.Errorf("%s with the bits behind it: %s", text, PrefixOf(n))
		}
	}
	if p := PrefixOf(&net.IPNet{IP: net.ParseIP("192.0.2.7"), Mask: net.CIDRMask(24, 32)}); p.String() != "192.0.2.7/24" {
		t.Errorf("an IPv4 address in sixteen octets: %s", p)
	}
	for _, n := range []*net.IPNet{nil, {}, {IP: net.IP{1}, Mask: net.CIDRMask(1, 8)}, {IP: net.ParseIP("::1"), Mask: net.IPMask{0xff, 0, 0xff}}} {
		if p := PrefixOf(n); p.IsValid() {
			t.Errorf("%v is %s", n, p)
		}
	}
}

func TestFamily(t *testing.T) {
	if Family(netip.MustParseAddr("192.0.2.1")) != unix.AF_INET || Family(netip.MustParseAddr("::1")) != unix.AF_INET6 {
		t.Error("families are wrong")
	}
}
