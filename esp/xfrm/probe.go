package xfrm

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// ErrNoInterface: the kernel has ESP, but no XFRM interfaces.
var ErrNoInterface = errors.New("the kernel has no XFRM interfaces (CONFIG_XFRM_INTERFACE)")

// Probe tries for real whether the kernel can do what sessions need, and removes what
// it tried with: states with each of the proposals' algorithms, in UDP, for both
// address families, a policy, sockets that take ESP out of UDP, and an XFRM interface.
// With ErrNoInterface everything is there but for the last, and a data path must be
// PolicyBased.
func Probe(o Owner, proposals []suite.ESPProposal) error {
	socket, err := openSocket()
	if err != nil {
		return err
	}
	cfg := Config{Owner: o, Name: "wfprobe", Now: time.Now}
	k := &linux{cfg: cfg, socket: socket}
	defer socket.Close()
	families := []string{"192.0.2.1", "2001:db8::1"}
	if !hasIPv6() {
		families = families[:1]
	}
	for _, f := range families {
		addr := netip.MustParseAddr(f)
		if err := k.probeStates(addr, proposals); err != nil {
			return err
		}
		if err := probeSocket(addr.Is6()); err != nil {
			return err
		}
	}
	return probeInterface(o)
}

// hasIPv6 says whether the machine has the family at all.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// probeStates installs and removes a state for each combination of algorithms that may
// be negotiated, and one policy.
func (k *linux) probeStates(addr netip.Addr, proposals []suite.ESPProposal) error {
	reqid := k.cfg.Owner.base() | 2
	for i, sa := range combinations(proposals) {
		s := &state{
			stateID: stateID{addr, 0x57000100 + uint32(i)}, src: addr.Next(), sa: &sa, reqid: reqid,
			encap: &encap{4500, 4500}, window: esp.DefaultReplayWindow,
		}
		if err := k.AddState(s); err != nil {
			return fmt.Errorf("the kernel refuses ESP with %v %v (test state for %v): %w", sa.Encr, sa.Integ, addr, err)
		}
		if _, err := k.RemoveState(s.stateID); err != nil {
			return fmt.Errorf("the kernel does not give a test state back: %w", err)
		}
	}
	host := netip.PrefixFrom(addr, addr.BitLen())
	p := policy{policyKey: policyKey{dirForward, selector{src: host, dst: host}}, priority: 1, reqid: reqid}
	if err := k.SetPolicy(p); err != nil {
		return fmt.Errorf("the kernel refuses a test policy: %w", err)
	}
	return k.RemovePolicy(p.policyKey)
}

// combinations lists an SA for each pair of algorithms.
func combinations(proposals []suite.ESPProposal) (out []esp.SA) {
	type pair struct {
		encr  suite.Encr
		integ suite.IntegID
	}
	seen := map[pair]bool{}
	for _, p := range proposals {
		integs := p.Integ
		if len(integs) == 0 {
			integs = []suite.IntegID{suite.IntegNone}
		}
		for _, e := range p.Encr {
			for _, i := range integs {
				if seen[pair{e, i}] {
					continue
				}
				seen[pair{e, i}] = true
				// Keys of a test: some implementations refuse keys that are all zero.
				out = append(out, esp.SA{Encr: e, Integ: i, ESN: true,
					EncrKey: bytes.Repeat([]byte{0x5a}, e.KeyMaterialLen()), IntegKey: bytes.Repeat([]byte{0xa5}, i.KeyLen())})
			}
		}
	}
	return out
}

// probeSocket tries to have ESP taken out of UDP.
func probeSocket(v6 bool) error {
	family, name := unix.AF_INET, "IPv4"
	if v6 {
		family, name = unix.AF_INET6, "IPv6"
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a test socket for ESP in UDP over %s: %w", name, err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpEncap, encapESPInUDP); err != nil {
		return fmt.Errorf("the kernel does not take ESP out of UDP over %s: %w", name, err)
	}
	return nil
}

// probeInterface makes an interface of the type that a tunnel would be.
func probeInterface(o Owner) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("wfprobe%d", o)
	link := &netlink.Xfrmi{LinkAttrs: attrs, Ifid: o.base() | 2}
	err := netlink.LinkAdd(link)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return ErrNoInterface
	case err != nil && !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("make a test interface: %w", err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove the test interface %s: %w", attrs.Name, err)
	}
	return nil
}
