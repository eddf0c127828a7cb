package xfrm

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// The structures of linux/xfrm.h, as far as the netlink library leaves them out or
// does not fill them as needed. Numbers are in the machine's order unless said.

const (
	modeTunnel    = 1 // XFRM_MODE_TUNNEL
	encapESPInUDP = 2 // UDP_ENCAP_ESPINUDP
	udpEncap      = 100
	infinite      = ^uint64(0) // XFRM_INF
)

var errShort = errors.New("the kernel's message is shorter than it should be")

func familyOf(a netip.Addr) uint16 { return uint16(rtnl.Family(a)) }

func addressOf(a netip.Addr) (out nl.XfrmAddress) {
	copy(out[:], a.AsSlice())
	return out
}

func addressFrom(a nl.XfrmAddress, family uint16) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrFrom16(a)
}

func identifier(id stateID) *nl.XfrmUsersaId {
	return &nl.XfrmUsersaId{Daddr: addressOf(id.dst), Spi: nl.Swap32(id.spi), Family: familyOf(id.dst), Proto: unix.IPPROTO_ESP}
}

// stateInfo is struct xfrm_usersa_info for a state.
func stateInfo(s *state) *nl.XfrmUsersaInfo {
	info := &nl.XfrmUsersaInfo{
		Id:    nl.XfrmId{Daddr: addressOf(s.dst), Spi: nl.Swap32(s.spi), Proto: unix.IPPROTO_ESP},
		Saddr: addressOf(s.src), Reqid: s.reqid, Family: familyOf(s.dst), Mode: modeTunnel,
		// Packets of either family go inside, whatever the outer one.
		Flags: nl.XFRM_STATE_AF_UNSPEC,
		Lft:   lifetimes(s.limits),
	}
	if s.sa.ESN {
		info.Flags |= nl.XFRM_STATE_ESN
	}
	if s.outbound {
		// As in user space the outer packet may be fragmented: a path whose routers do
		// not tell what is too large for it is slow then, not dead.
		info.Flags |= nl.XFRM_STATE_NOPMTUDISC
	}
	return info
}

func lifetimes(l esp.Lifetime) nl.XfrmLifetimeCfg {
	orInfinite := func(n uint64) uint64 {
		if n == 0 {
			return infinite
		}
		return n
	}
	return nl.XfrmLifetimeCfg{
		SoftByteLimit: orInfinite(l.SoftBytes), HardByteLimit: orInfinite(l.HardBytes),
		SoftPacketLimit: orInfinite(l.SoftPackets), HardPacketLimit: orInfinite(l.HardPackets),
	}
}

func encapTemplate(e *encap) []byte {
	b := make([]byte, nl.SizeofXfrmEncapTmpl)
	t := nl.DeserializeXfrmEncapTmpl(b)
	t.EncapType, t.EncapSport, t.EncapDport = encapESPInUDP, nl.Swap16(e.sport), nl.Swap16(e.dport)
	return b
}

const replayHeader = 24 // struct xfrm_replay_state_esn without bitmap

// replayAttribute is struct xfrm_replay_state_esn. It serves states without ESN too,
// as the older form knows windows of 32 packets only.
func replayAttribute(window int, r *replayState) []byte {
	words := (window + 31) / 32
	b := make([]byte, replayHeader+4*words)
	order := nl.NativeEndian()
	order.PutUint32(b, uint32(words))
	order.PutUint32(b[20:], uint32(window))
	if r == nil {
		return b
	}
	order.PutUint32(b[4:], uint32(r.out))
	order.PutUint32(b[8:], uint32(r.in))
	order.PutUint32(b[12:], uint32(r.out>>32))
	order.PutUint32(b[16:], uint32(r.in>>32))
	for i, w := range r.bitmap {
		if i < words {
			order.PutUint32(b[replayHeader+4*i:], w)
		}
	}
	return b
}

// parseReplay is the opposite of replayAttribute.
func parseReplay(b []byte) (r replayState, err error) {
	if len(b) < replayHeader {
		return r, errShort
	}
	order := nl.NativeEndian()
	at := func(i int) uint64 { return uint64(order.Uint32(b[i:])) }
	r.out, r.in, r.window = at(12)<<32|at(4), at(16)<<32|at(8), uint32(at(20))
	words := at(0)
	if words > uint64(len(b)-replayHeader)/4 {
		return r, errShort
	}
	for i := range int(words) {
		r.bitmap = append(r.bitmap, order.Uint32(b[replayHeader+4*i:]))
	}
	return r, nil
}

// usageAttribute is struct xfrm_lifetime_cur: a state begins with what its
// predecessor has carried.
func usageAttribute(u *usage, now time.Time) []byte {
	b := make([]byte, 0, nl.SizeofXfrmLifetimeCur)
	order := nl.NativeEndian().(binary.AppendByteOrder)
	for _, n := range []uint64{u.octets, u.packets, uint64(now.Unix()), uint64(now.Unix())} {
		b = order.AppendUint64(b, n)
	}
	return b
}

// parseState reads struct xfrm_usersa_info and the attributes behind it.
func parseState(b []byte) (s snapshot, err error) {
	if len(b) < nl.SizeofXfrmUsersaInfo {
		return s, errShort
	}
	s.fill(nl.DeserializeXfrmUsersaInfo(b))
	return s, s.attributes(b[nl.SizeofXfrmUsersaInfo:])
}

func (s *snapshot) fill(info *nl.XfrmUsersaInfo) {
	s.src = addressFrom(info.Saddr, info.Family)
	s.used = usage{info.Curlft.Bytes, info.Curlft.Packets}
	s.replayed, s.outside, s.failed = uint64(info.Stats.Replay), uint64(info.Stats.ReplayWindow), uint64(info.Stats.IntegrityFailed)
}

// attributes reads those that matter. They may hold keys; nothing is kept of these.
func (s *snapshot) attributes(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case nl.XFRMA_REPLAY_ESN_VAL:
			if s.replay, err = parseReplay(a.Value); err != nil {
				return err
			}
		case nl.XFRMA_ENCAP:
			if len(a.Value) < nl.SizeofXfrmEncapTmpl {
				return errShort
			}
			t := nl.DeserializeXfrmEncapTmpl(a.Value)
			s.encap = &encap{nl.Swap16(t.EncapSport), nl.Swap16(t.EncapDport)}
		case nl.XFRMA_LASTUSED:
			if len(a.Value) < 8 {
				return errShort
			}
			s.lastUsed = time.Unix(int64(nl.NativeEndian().Uint64(a.Value)), 0)
		}
	}
	return nil
}

// parseRemoval reads the notice of a removed state: its identifier, and what it was.
func parseRemoval(b []byte) (id stateID, s snapshot, err error) {
	if len(b) < nl.SizeofXfrmUsersaId {
		return id, s, errShort
	}
	id = stateIDFrom(nl.DeserializeXfrmUsersaId(b))
	rest := b[nl.SizeofXfrmUsersaId:]
	attrs, err := nl.ParseRouteAttr(rest)
	if err != nil {
		return id, s, err
	}
	for _, a := range attrs {
		if a.Attr.Type != nl.XFRMA_SA {
			continue
		}
		if len(a.Value) < nl.SizeofXfrmUsersaInfo {
			return id, s, errShort
		}
		s.fill(nl.DeserializeXfrmUsersaInfo(a.Value))
		return id, s, s.attributes(rest)
	}
	return id, s, errShort
}

func stateIDFrom(id *nl.XfrmUsersaId) stateID {
	return stateID{addressFrom(id.Daddr, id.Family), nl.Swap32(id.Spi)}
}

// mappingLength is the size of struct xfrm_user_mapping.
const mappingLength = nl.SizeofXfrmUsersaId + 4 + 2*nl.SizeofXfrmAddress + 4

// parseEvent reads a message of the kernel; false when it is of no interest.
func parseEvent(kind uint16, b []byte) (e kernelEvent, ok bool) {
	switch kind {
	case nl.XFRM_MSG_EXPIRE:
		if len(b) < nl.SizeofXfrmUserExpire {
			return e, false
		}
		m := nl.DeserializeXfrmUserExpire(b)
		info := &m.XfrmUsersaInfo
		return kernelEvent{
			kind: stateExpired, hard: m.Hard != 0, used: usage{info.Curlft.Bytes, info.Curlft.Packets},
			id: stateID{addressFrom(info.Id.Daddr, info.Family), nl.Swap32(info.Id.Spi)},
		}, true
	case nl.XFRM_MSG_MAPPING:
		if len(b) < mappingLength {
			return e, false
		}
		id := nl.DeserializeXfrmUsersaId(b)
		source := b[nl.SizeofXfrmUsersaId+4+nl.SizeofXfrmAddress:]
		port := binary.BigEndian.Uint16(source[nl.SizeofXfrmAddress+2:])
		addr := addressFrom(nl.XfrmAddress(source[:nl.SizeofXfrmAddress]), id.Family)
		return kernelEvent{kind: mappingChanged, id: stateIDFrom(id), source: netip.AddrPortFrom(addr, port)}, true
	}
	return e, false
}

// selectorInfo is struct xfrm_selector.
func selectorInfo(s selector) nl.XfrmSelector {
	return nl.XfrmSelector{
		Daddr: addressOf(s.dst.Addr()), Saddr: addressOf(s.src.Addr()), Family: familyOf(s.dst.Addr()),
		PrefixlenD: uint8(s.dst.Bits()), PrefixlenS: uint8(s.src.Bits()), Proto: s.protocol,
		Sport: nl.Swap16(s.sport), SportMask: nl.Swap16(s.sportMask),
		Dport: nl.Swap16(s.dport), DportMask: nl.Swap16(s.dportMask),
	}
}

// policyInfo is struct xfrm_userpolicy_info.
func policyInfo(p policy) *nl.XfrmUserpolicyInfo {
	info := &nl.XfrmUserpolicyInfo{
		Sel: selectorInfo(p.sel), Priority: p.priority, Dir: uint8(p.dir),
		Lft: lifetimes(esp.Lifetime{}),
	}
	if p.block {
		info.Action = uint8(netlink.XFRM_POLICY_BLOCK)
	}
	return info
}

// templateInfo is struct xfrm_user_tmpl. Without addresses any will do.
func templateInfo(p policy) []byte {
	t := nl.XfrmUserTmpl{
		XfrmId: nl.XfrmId{Spi: nl.Swap32(p.spi), Proto: unix.IPPROTO_ESP},
		Family: familyOf(p.sel.dst.Addr()), Reqid: p.reqid, Mode: modeTunnel,
		Aalgos: ^uint32(0), Ealgos: ^uint32(0), Calgos: ^uint32(0),
	}
	if p.dst.IsValid() {
		t.XfrmId.Daddr, t.Saddr, t.Family = addressOf(p.dst), addressOf(p.src), familyOf(p.dst)
	}
	return t.Serialize()
}

// migrateInfo is struct xfrm_user_migrate.
func migrateInfo(m migration) []byte {
	var b []byte
	for _, a := range []netip.Addr{m.oldDst, m.oldSrc, m.newDst, m.newSrc} {
		x := addressOf(a)
		b = append(b, x[:]...)
	}
	order := nl.NativeEndian().(binary.AppendByteOrder)
	b = append(b, unix.IPPROTO_ESP, modeTunnel, 0, 0)
	b = order.AppendUint32(b, m.reqid)
	b = order.AppendUint16(b, familyOf(m.oldDst))
	return order.AppendUint16(b, familyOf(m.newDst))
}
