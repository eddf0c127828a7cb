package esp

import (
	"net/netip"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

func TestPathCheck(t *testing.T) {
	remote := netip.MustParseAddrPort("192.0.2.1:4500")
	nowhere := netip.AddrPortFrom(remote.Addr(), 0)
	for _, tt := range []struct {
		path Path
		ok   bool
	}{
		{Path{Pair: locator.Pair{Remote: remote}, UDP: true}, true},
		{Path{Pair: locator.Pair{Remote: nowhere}}, true},
		{Path{Pair: locator.Pair{Remote: nowhere}, UDP: true}, false},
		{Path{}, false},
		{Path{Pair: locator.Pair{Remote: remote}, Keepalive: -1}, false},
		{Path{Pair: locator.Pair{Remote: remote}, MTU: -1}, false},
	} {
		if err := tt.path.Check(); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.path, err)
		}
	}
}
