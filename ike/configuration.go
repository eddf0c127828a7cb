package ike

import (
	"net/netip"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// Limits on what a peer's Configuration payload may make us keep.
const (
	maxRequested = 4
	maxAssigned  = 64
)

// configurationTask is the Configuration payload in IKE_AUTH (RFC 7296 §2.19,
// §3.15): the initiator asks for inner addresses, DNS servers and networks, the
// responder gives what Authorize granted.
type configurationTask struct {
	asked              bool // the peer sent CFG_REQUEST
	wantIPv4, wantIPv6 bool
	requested          []netip.Addr
}

// configuration returns the session's task.
func (s *Session) configuration() *configurationTask {
	for _, t := range s.tasks {
		if c, ok := t.(*configurationTask); ok {
			return c
		}
	}
	return &configurationTask{}
}

func (t *configurationTask) Request(x *Exchange) error {
	p := x.Session.policy
	if x.Type != message.IKEAuth || !(p.RequestIPv4 || p.RequestIPv6) {
		return nil
	}
	cp := &message.CP{Kind: message.CFGRequest}
	ask := func(kinds ...message.AttributeType) {
		for _, k := range kinds {
			cp.Attributes = append(cp.Attributes, message.Attribute{Type: k})
		}
	}
	if p.RequestIPv4 {
		ask(message.InternalIP4Address, message.InternalIP4DNS, message.InternalIP4Subnet)
	}
	if p.RequestIPv6 {
		ask(message.InternalIP6Address, message.InternalIP6DNS, message.InternalIP6Subnet)
	}
	ask(message.InternalDNSDomain)
	x.Add(cp)
	return nil
}

func (t *configurationTask) HandleRequest(x *Exchange) error {
	if x.Type != message.IKEAuth {
		return nil
	}
	cp, ok := message.Find[*message.CP](x.In)
	if !ok || cp.Kind != message.CFGRequest {
		return nil
	}
	t.asked = true
	for _, a := range cp.Attributes {
		switch a.Type {
		case message.InternalIP4Address:
			t.wantIPv4 = true
			t.remember(a.Value, 4)
		case message.InternalIP6Address:
			t.wantIPv6 = true
			t.remember(a.Value, 16)
		}
	}
	return nil
}

// remember keeps an address that the peer would like to have.
func (t *configurationTask) remember(value []byte, n int) {
	if len(value) < n || len(t.requested) >= maxRequested {
		return
	}
	if a, ok := netip.AddrFromSlice(value[:n]); ok && !a.IsUnspecified() {
		t.requested = append(t.requested, a)
	}
}

func (t *configurationTask) Respond(x *Exchange) error {
	if x.Type != message.IKEAuth || !t.asked {
		return nil
	}
	c := x.Session.config
	cp := &message.CP{Kind: message.CFGReply}
	add := func(a message.Attribute) { cp.Attributes = append(cp.Attributes, a) }
	for _, a := range c.Addresses {
		if a.Is4() {
			add(message.AddrAttribute(message.InternalIP4Address, a))
		} else {
			add(message.PrefixAttribute(message.InternalIP6Address, netip.PrefixFrom(a, 128)))
		}
	}
	for _, a := range c.DNS {
		switch {
		case a.Is4() && t.wantIPv4:
			add(message.AddrAttribute(message.InternalIP4DNS, a))
		case !a.Is4() && t.wantIPv6:
			add(message.AddrAttribute(message.InternalIP6DNS, a))
		}
	}
	for _, p := range c.Subnets {
		kind := message.InternalIP4Subnet
		if p.Addr().Is6() {
			kind = message.InternalIP6Subnet
		}
		add(message.PrefixAttribute(kind, p.Masked()))
	}
	for _, d := range c.Domains {
		add(message.Attribute{Type: message.InternalDNSDomain, Value: []byte(d)})
	}
	x.Add(cp)
	return nil
}

func (t *configurationTask) HandleResponse(x *Exchange) error {
	if x.Type != message.IKEAuth {
		return nil
	}
	cp, ok := message.Find[*message.CP](x.In)
	if !ok || cp.Kind != message.CFGReply {
		return nil
	}
	c := &x.Session.config
	for _, a := range cp.Attributes[:min(len(cp.Attributes), maxAssigned)] {
		readAttribute(c, a)
	}
	return nil
}

// readAttribute adds one assigned attribute; what is malformed or unknown is left
// out (RFC 7296 §3.15.1). One address of each family is taken.
func readAttribute(c *Configuration, a message.Attribute) {
	has := func(is4 bool) bool {
		return slices.ContainsFunc(c.Addresses, func(x netip.Addr) bool { return x.Is4() == is4 })
	}
	switch a.Type {
	case message.InternalIP4Address, message.InternalIP6Address:
		if addr, ok := a.Addr(); ok && !has(addr.Is4()) {
			c.Addresses = append(c.Addresses, addr)
		}
	case message.InternalIP4DNS, message.InternalIP6DNS:
		if addr, ok := a.Addr(); ok {
			c.DNS = append(c.DNS, addr)
		}
	case message.InternalIP4Subnet, message.InternalIP6Subnet:
		if p, ok := a.Prefix(); ok {
			c.Subnets = append(c.Subnets, p.Masked())
		}
	case message.InternalDNSDomain:
		if validDomain(a.Value) {
			c.Domains = append(c.Domains, string(a.Value))
		}
	}
}

// validDomain accepts host name characters only: the name goes into resolver
// configuration.
func validDomain(v []byte) bool {
	if len(v) == 0 || len(v) > 253 {
		return false
	}
	for _, b := range v {
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if !letter && b != '-' && b != '.' && b != '_' {
			return false
		}
	}
	return true
}
