package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the netfilter table that is ours, outChain its chain for what leaves.
const (
	tableName = "wayfarer_client"
	outChain  = "postrouting"
)

// ErrUnsupported is returned by Set when the kernel has no nf_tables. The rules of
// package route are in force nevertheless.
var ErrUnsupported = errors.New("this kernel has no nf_tables")

// Priorities of the chains: before source NAT (100), which would hide inner
// addresses; before everything that may look at marks, connection tracking (-200) and
// the filters of firewalls (-300 and up) among it.
const (
	priorityOut = nftables.ChainPriority(-1)
	priorityIn  = nftables.ChainPriority(-310)
)

func addChain(c *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook, at nftables.ChainPriority) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &at})
}

// Settings say what netfilter is to do.
type Settings struct {
	// Interface is the tunnel's, the only one besides loopback that packets from
	// Addresses may leave by.
	Interface string
	Addresses []netip.Addr
	// KernelESP says that the kernel seals packets. Netfilter then sees them leave by an
	// uplink too, when they are about to be sealed.
	KernelESP bool
	// Ports are our own UDP ports. What comes in for them gets Mark, so that the
	// reverse path filters of firewalls find the way that our answers take, and not
	// the tunnel (firewalld drops IPv6 otherwise).
	Ports []uint16
	Mark  uint32
}

// Set makes netfilter do what s says. It replaces what was set before, in one
// transaction, and may be called any number of times.
func Set(s Settings) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open the netfilter socket: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	// Deleting needs a table that is there: made if missing, then made anew.
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	out := addChain(c, table, outChain, nftables.ChainHookPostrouting, priorityOut)
	for _, name := range []string{"lo", s.Interface} {
		if name != "" {
			c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: leavesBy(name)})
		}
	}
	if s.KernelESP {
		c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: isSealed()})
	}
	for _, a := range s.Addresses {
		c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: comesFrom(a)})
	}
	if len(s.Ports) > 0 {
		in := addChain(c, table, "prerouting", nftables.ChainHookPrerouting, priorityIn)
		for _, port := range s.Ports {
			c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: markFor(port, s.Mark)})
		}
	}
	if err := c.Flush(); err != nil {
		return explain("guard the inner addresses with netfilter", err)
	}
	return nil
}

// Release lets packets from addresses pass that are not ours to guard any more. All
// else that was set stays, whoever set it.
func Release(addrs []netip.Addr) error {
	const what = "release inner addresses from the netfilter guard"
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open the netfilter socket: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	rules, err := c.GetRules(table, &nftables.Chain{Name: outChain, Table: table})
	if errors.Is(err, unix.ENOENT) || unsupported(err) {
		return nil
	}
	if err != nil {
		return explain(what, err)
	}
	for _, r := range rules {
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return drops(r, a) }) {
			continue
		}
		if err := c.DelRule(r); err != nil {
			return explain(what, err)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return explain(what, err)
	}
	return nil
}

// drops recognises the rule of comesFrom.
func drops(r *nftables.Rule, a netip.Addr) bool {
	compares, drops := false, false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Cmp:
			compares = compares || bytes.Equal(e.Data, a.AsSlice())
		case *expr.Verdict:
			drops = drops || e.Kind == expr.VerdictDrop
		}
	}
	return compares && drops
}

// Remove takes the table away, whoever set it up.
func Remove() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open the netfilter socket: %w", err)
	}
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	err = c.Flush()
	if err == nil || errors.Is(err, unix.ENOENT) || unsupported(err) {
		return nil
	}
	return explain("remove the netfilter guard", err)
}

// Present says whether the table is there. Other software may remove it: reloading a
// firewall often begins with flushing everything.
func Present() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open the netfilter socket: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, explain("look for the netfilter guard", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }), nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

func explain(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w (it needs root or CAP_NET_ADMIN)", what, err)
	case unsupported(err):
		return fmt.Errorf("%s: %w: %w", what, ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// leavesBy accepts what leaves by an interface. It goes by name, since the index
// changes when the tunnel is made anew.
func leavesBy(name string) []expr.Any {
	wanted := make([]byte, unix.IFNAMSIZ)
	copy(wanted, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: wanted},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// isSealed accepts what IPsec is about to seal (NFT_RT_XFRM of linux/netfilter/nf_tables.h).
func isSealed() []expr.Any {
	const routeIPsec expr.RtKey = 4
	return []expr.Any{
		&expr.Rt{Key: routeIPsec, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// comesFrom drops what has this source address.
func comesFrom(a netip.Addr) []expr.Any {
	// Offsets of the source address in the two IP headers (RFC 791 §3.1, RFC 8200 §3).
	proto, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if a.Is6() {
		proto, offset = unix.NFPROTO_IPV6, 8
	}
	b := a.AsSlice()
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(b))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// markFor marks UDP packets to a port.
func markFor(port uint16, mark uint32) []expr.Any {
	const destination = 2 // offset of the destination port (RFC 768)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: destination, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}
