package netmon

import (
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// waysOut describes what addresses alone do not show: the default gateways, and how
// often the carrier of the uplinks has come and gone. Two descriptions are compared, no
// more; what cannot be read is left out.
func waysOut(uplinks []locator.Local) string {
	var b strings.Builder
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := routesIn(family, unix.RT_TABLE_MAIN)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if !isDefault(&r) {
				continue
			}
			fmt.Fprintf(&b, "%d %d %v", r.LinkIndex, r.Priority, r.Gw)
			for _, hop := range r.MultiPath {
				fmt.Fprintf(&b, " %d %v", hop.LinkIndex, hop.Gw)
			}
			b.WriteByte('\n')
		}
	}
	seen := map[string]bool{}
	for _, l := range uplinks {
		if seen[l.Name] || strings.ContainsAny(l.Name, "/") {
			continue
		}
		seen[l.Name] = true
		// The kernel has it in netlink too (IFLA_CARRIER_CHANGES), the library has not.
		count, err := os.ReadFile("/sys/class/net/" + l.Name + "/carrier_changes")
		if err == nil {
			fmt.Fprintf(&b, "%s %s", l.Name, count)
		}
	}
	return b.String()
}
