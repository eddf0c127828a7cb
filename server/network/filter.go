package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// tableName is our table of the inet family; nobody else writes to it.
const tableName = "wayfarer_server"

// filter replaces our table by one for d, in one transaction: at no moment is there
// none or half of one.
func (n *Network) filter(d Desired) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	n.warnOfOtherFilters(c, d.Device)
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that deleting does not fail
	c.DelTable(t)
	c.AddTable(t)
	antispoof(c, t, d)
	keepInside(c, t, d)
	if d.KernelESP {
		clampMSS(c, t, d)
	}
	if d.Masquerade {
		masquerade(c, t, d)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install the packet filter table %s: %w: the kernel must have nf_tables (and nft_masq for masquerade)", tableName, err)
	}
	return nil
}

// removeFilter removes our table; that there is none, or no nftables, is no error.
func removeFilter() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil // without nftables there is nothing to remove
	}
	for _, t := range tables {
		if t.Name == tableName {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the packet filter table %s: %w", tableName, err)
	}
	return nil
}

// antispoof drops packets that claim to come from a client but did not come through
// the tunnel.
func antispoof(c *nftables.Conn, t *nftables.Table, d Desired) {
	chain := c.AddChain(&nftables.Chain{Name: "antispoof", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	for _, p := range d.Pools {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(
			d.notFromTunnel(), interfaceIsNot(expr.MetaKeyIIFNAME, "lo"), address(p, source), drop())})
	}
}

// keepInside drops packets for a client that are about to leave by another device.
func keepInside(c *nftables.Conn, t *nftables.Table, d Desired) {
	chain := c.AddChain(&nftables.Chain{Name: "keep_inside", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityMangle})
	for _, p := range d.Pools {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(
			d.notToTunnel(), interfaceIsNot(expr.MetaKeyOIFNAME, "lo"), address(p, destination), drop())})
	}
}

// masquerade gives packets from clients the address of the device they leave by.
func masquerade(c *nftables.Conn, t *nftables.Table, d Desired) {
	chain := c.AddChain(&nftables.Chain{Name: "masquerade", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, p := range d.Pools {
		rule := join(d.notToTunnel(), interfaceIsNot(expr.MetaKeyOIFNAME, "lo"), address(p, source))
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(rule, &expr.Counter{}, &expr.Masq{})})
	}
}

// clampMSS lowers the segment size in the SYN segments of connections that enter the
// tunnel to what its route carries.
func clampMSS(c *nftables.Conn, t *nftables.Table, d Desired) {
	const (
		flagsAt, syn         = 13, 0x02 // RFC 9293 §3.1
		optionMSS, sizeAt    = 2, 2     // RFC 9293 §3.2
		protocolTCP, mssSize = unix.IPPROTO_TCP, 2
	)
	chain := c.AddChain(&nftables.Chain{Name: "clamp_mss", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityMangle})
	into := interfaceIs(expr.MetaKeyOIFNAME, d.Device)
	if d.PolicyBased {
		into = []expr.Any{&expr.Rt{Key: routeIPsec, Register: register}, equals(1)}
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(into, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		equals(protocolTCP),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: flagsAt, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{syn}, Xor: []byte{0}},
		equals(syn),
		&expr.Rt{Key: expr.RtTCPMSS, Register: register},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: mssSize, Size: mssSize},
		&expr.Exthdr{Op: expr.ExthdrOpTcpopt, SourceRegister: register, Type: optionMSS, Offset: sizeAt, Len: mssSize},
	})})
}

// warnOfOtherFilters tells of chains that drop forwarded packets by default: a rule of
// ours cannot overrule them, since every chain at a hook has its say.
func (n *Network) warnOfOtherFilters(c *nftables.Conn, device string) {
	for _, name := range forwardDroppers(c) {
		if n.warned[name] {
			continue
		}
		n.warned[name] = true
		n.log.Warn("another packet filter drops forwarded packets by default: allow those from and to the TUN device there", "chain", name, "device", device)
	}
}

// ForwardDroppers names the packet filter chains of others that drop forwarded
// packets by default.
func ForwardDroppers() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return forwardDroppers(c), nil
}

func forwardDroppers(c *nftables.Conn) []string {
	chains, err := c.ListChains()
	if err != nil {
		return nil // no nftables: installing our own table tells
	}
	var names []string
	for _, ch := range chains {
		if ch.Table.Name == tableName || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward ||
			ch.Type != nftables.ChainTypeFilter || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
			continue
		}
		names = append(names, familyName(ch.Table.Family)+" "+ch.Table.Name+" "+ch.Name)
	}
	return names
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	default:
		return "inet"
	}
}

// register is where a rule's expressions put what they compare.
const register = 1

// Keys of linux/netfilter/nf_tables.h that the library has no names for.
const (
	metaSecpath expr.MetaKey = 25 // NFT_META_SECPATH: the packet was opened by IPsec
	routeIPsec  expr.RtKey   = 4  // NFT_RT_XFRM: the packet will be sealed by IPsec
)

// notFromTunnel goes on unless the packet came out of the tunnel.
func (d *Desired) notFromTunnel() []expr.Any {
	if d.PolicyBased {
		return []expr.Any{&expr.Meta{Key: metaSecpath, Register: register}, equals(0)}
	}
	return interfaceIsNot(expr.MetaKeyIIFNAME, d.Device)
}

// notToTunnel goes on unless the packet is about to enter the tunnel. What the kernel
// seals passes here twice, with an XFRM interface too: the second time it is about to
// leave by the uplink, and will be sealed before.
func (d *Desired) notToTunnel() []expr.Any {
	out := interfaceIsNot(expr.MetaKeyOIFNAME, d.Device)
	if d.KernelESP {
		out = append(out, &expr.Rt{Key: routeIPsec, Register: register}, equals(0))
	}
	return out
}

// equals goes on if the register holds this octet.
func equals(b byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{b}}
}

// interfaceIs goes on if the packet's interface has this name.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	out := interfaceIsNot(key, name)
	out[1].(*expr.Cmp).Op = expr.CmpOpEq
	return out
}

// interfaceIsNot goes on unless the packet's interface has this name.
func interfaceIsNot(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: padded},
	}
}

// side says which address of a packet is meant.
type side bool

const (
	source      side = false
	destination side = true
)

// address goes on if the packet's address is in p.
func address(p netip.Prefix, which side) []expr.Any {
	proto, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(net.IPv4len) // RFC 791 §3.1
	if p.Addr().Is6() {
		proto, offset, length = unix.NFPROTO_IPV6, 8, net.IPv6len // RFC 8200 §3
	}
	if which == destination {
		offset += length
	}
	n := rtnl.IPNet(p)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{proto}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: length, Mask: n.Mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: n.IP},
	}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
