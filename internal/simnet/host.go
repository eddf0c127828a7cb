package simnet

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Errors of Send, as a socket would give them.
var (
	ErrNoAddress = errors.New("the local address is not on this host")
	ErrNoRoute   = errors.New("no link that is up leads there")
)

// Host is a node's place in the network.
type Host struct {
	network *Network
	name    string
	node    Node
	links   []*Link
}

// Name returns the name given to Attach.
func (h *Host) Name() string { return h.name }

// Links returns the host's links in the order in which they were added.
func (h *Host) Links() []*Link { return slices.Clone(h.links) }

// LinkConfig describes a link of a host.
type LinkConfig struct {
	Name  string
	Addrs []netip.Addr
	// NAT is the box between the link and the rest. Addresses of another family
	// than its public one are not translated.
	NAT     *NAT
	Out, In Conditions
}

// Direction of a link, as its host sees it.
type Direction int

// The two directions of a link.
const (
	Out Direction = iota
	In
)

// Link is an interface of a host.
type Link struct {
	host  *Host
	name  string
	index int // of the interface, from 1
	nat   *NAT
	addrs []netip.Addr
	up    bool
	ways  [2]direction
}

// AddLink gives the host a link, which is up.
func (h *Host) AddLink(cfg LinkConfig) *Link {
	l := &Link{host: h, name: cfg.Name, index: len(h.links) + 1, nat: cfg.NAT, up: true}
	l.ways[Out].Conditions, l.ways[In].Conditions = cfg.Out, cfg.In
	h.links = append(h.links, l)
	for _, a := range cfg.Addrs {
		l.AddAddr(a)
	}
	return l
}

// Index returns the interface index of the link, as in locator.Pair.
func (l *Link) Index() int { return l.index }

// Addrs returns the addresses of the link.
func (l *Link) Addrs() []netip.Addr { return slices.Clone(l.addrs) }

// Up reports whether the link is up.
func (l *Link) Up() bool { return l.up }

// SetUp takes the link down or up. Packets on their way to a link that is down
// are lost.
func (l *Link) SetUp(up bool) {
	l.up = up
	l.host.network.Note("%s is up: %v", l.where(), up)
}

// SetConditions sets the conditions of one direction, for packets sent from now on.
func (l *Link) SetConditions(d Direction, c Conditions) { l.ways[d].Conditions = c }

// AddAddr gives the link an address.
func (l *Link) AddAddr(a netip.Addr) {
	r := l.realm(a)
	r.claim(a, l.where())
	r.links[a] = l
	l.addrs = append(l.addrs, a)
	l.host.network.Note("%s has %s", l.where(), a)
}

// RemoveAddr takes an address away.
func (l *Link) RemoveAddr(a netip.Addr) {
	i := slices.Index(l.addrs, a)
	if i < 0 {
		return
	}
	l.addrs = slices.Delete(l.addrs, i, i+1)
	delete(l.realm(a).links, a)
	l.host.network.Note("%s has lost %s", l.where(), a)
}

// Move puts the link behind another NAT, or none, with new addresses: what
// changing to another Wi-Fi does.
func (l *Link) Move(nat *NAT, addrs ...netip.Addr) {
	for _, a := range l.Addrs() {
		l.RemoveAddr(a)
	}
	l.nat = nat
	for _, a := range addrs {
		l.AddAddr(a)
	}
}

// realm is where an address of the link is known.
func (l *Link) realm(a netip.Addr) *realm {
	nat := l.nat
	for nat != nil && !nat.translates(a) {
		nat = nat.behind
	}
	if nat == nil {
		return l.host.network.public
	}
	return nat.inner
}

func (l *Link) where() string { return l.host.name + "/" + l.name }

// Send sends a datagram from the host. A local address that is not specified is
// chosen: the first of the remote's family on a link that is up, on the pair's
// interface if that is given. Data is copied.
func (h *Host) Send(pair locator.Pair, data []byte) error { return h.send(pair, data, false) }

// SendWhole sends a datagram with the don't fragment bit: where it does not fit it is
// dropped (RFC 791 §2.3), and the sender told only where Conditions say so.
func (h *Host) SendWhole(pair locator.Pair, data []byte) error { return h.send(pair, data, true) }

func (h *Host) send(pair locator.Pair, data []byte, whole bool) error {
	n := h.network
	link, local, err := h.choose(pair)
	if err != nil {
		n.Note("%s cannot send on %s: %v", h.name, pair, err)
		return fmt.Errorf("send on %s: %w", pair, err)
	}
	pair.Local = netip.AddrPortFrom(local, pair.Local.Port())
	n.packets++
	p := &packet{from: link, pair: pair, whole: whole, Packet: Packet{
		ID: n.packets, Src: pair.Local, Dst: pair.Remote, Data: bytes.Clone(data), Fragments: 1,
	}}
	p.largest = p.size()
	n.stats.Sent++
	n.tracePacket("send", link.where(), p)
	switch {
	case n.filter != nil && n.filter(p.Packet):
		n.drop(p, Filtered, link.where())
	case n.isBlocked(p):
		n.drop(p, Blocked, link.where())
	default:
		n.pass(&link.ways[Out], p, link.where(), link.leave)
	}
	return nil
}

// choose finds the link and the source address of a pair.
func (h *Host) choose(pair locator.Pair) (*Link, netip.Addr, error) {
	local, remote := pair.Local.Addr(), pair.Remote.Addr()
	specified := local.IsValid() && !local.IsUnspecified()
	known := false
	for _, l := range h.links {
		for _, a := range l.addrs {
			if specified && a != local {
				continue
			}
			known = true
			if l.up && a.Is4() == remote.Is4() && (pair.Interface == 0 || pair.Interface == l.index) {
				return l, a, nil
			}
		}
	}
	if specified && !known {
		return nil, netip.Addr{}, ErrNoAddress
	}
	return nil, netip.Addr{}, ErrNoRoute
}

// leave is called when a packet has come to the far end of the link.
func (l *Link) leave(p *packet) {
	if !l.up {
		l.host.network.drop(p, LinkDown, l.where())
		return
	}
	l.host.network.route(l.realm(p.Src.Addr()), p)
}

// arrive is called when a packet has come to the near end of the link.
func (l *Link) arrive(p *packet) {
	n := l.host.network
	switch {
	case !l.up:
		n.drop(p, LinkDown, l.where())
	case !slices.Contains(l.addrs, p.Dst.Addr()):
		n.drop(p, NoSuchAddress, l.where())
	default:
		n.stats.Delivered++
		n.tracePacket("receive", l.where(), p)
		l.host.node.Receive(n.now, locator.Pair{Local: p.Dst, Remote: p.Src, Interface: l.index}, p.Data)
	}
}
