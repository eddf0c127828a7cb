package xfrm

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

func TestReplayState(t *testing.T) {
	r := replayState{out: 1<<40 | 5, in: 3<<32 | 9, window: 64, bitmap: []uint32{0x80000001, 7}}
	b := replayAttribute(64, &r)
	got, err := parseReplay(b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("%+v %v", got, err)
	}
	for n := range b {
		if _, err := parseReplay(b[:n]); err == nil {
			t.Errorf("%d octets of %d are taken", n, len(b))
		}
	}
	if empty := replayAttribute(2048, nil); len(empty) != replayHeader+256 {
		t.Errorf("%d octets for a window of 2048", len(empty))
	}
}

// removal is the notice of a state's removal, as the kernel writes it.
func removal(s *state, r *replayState, u usage, last time.Time) []byte {
	info := stateInfo(s)
	info.Curlft.Bytes, info.Curlft.Packets = u.octets, u.packets
	info.Stats = nl.XfrmStats{ReplayWindow: 1, Replay: 2, IntegrityFailed: 3}
	b := append([]byte(nil), identifier(s.stateID).Serialize()...)
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(nl.XFRMA_SA, info.Serialize()),
		nl.NewRtAttr(nl.XFRMA_REPLAY_ESN_VAL, replayAttribute(s.window, r)),
		nl.NewRtAttr(nl.XFRMA_ENCAP, encapTemplate(s.encap)),
		nl.NewRtAttr(nl.XFRMA_LASTUSED, nl.Uint64Attr(uint64(last.Unix()))),
	} {
		b = append(b, a.Serialize()...)
	}
	return b
}

func sampleState(six bool) *state {
	c := childOf(1)
	s := &state{stateID: stateID{netip.MustParseAddr("203.0.113.10"), 0x2001}, src: netip.MustParseAddr("192.0.2.10"), sa: &c.Out,
		reqid: Laptop.base() | 77, encap: &encap{4500, 40001}, outbound: true, window: 64}
	if six {
		s.dst, s.src = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::20")
	}
	return s
}

func TestRemovalNotice(t *testing.T) {
	for _, six := range []bool{false, true} {
		s := sampleState(six)
		r := replayState{out: 99, window: 64, bitmap: []uint32{1, 2}}
		b := removal(s, &r, usage{4200, 42}, time.Unix(1234, 0))
		id, got, err := parseRemoval(b)
		want := snapshot{src: s.src, encap: s.encap, replay: r, used: usage{4200, 42}, replayed: 2, outside: 1, failed: 3, lastUsed: time.Unix(1234, 0)}
		if err != nil || id != s.stateID || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v %+v %v", id, got, err)
		}
		if got, err = parseState(append(stateInfo(s).Serialize(), b[nl.SizeofXfrmUsersaId:]...)); err != nil || got.src != s.src {
			t.Errorf("%+v %v", got, err)
		}
	}
}

func TestEvents(t *testing.T) {
	s := sampleState(false)
	expire := append(append([]byte(nil), stateInfo(s).Serialize()...), 1, 0, 0, 0, 0, 0, 0, 0)
	e, ok := parseEvent(nl.XFRM_MSG_EXPIRE, expire)
	if !ok || e.kind != stateExpired || !e.hard || e.id != s.stateID {
		t.Errorf("%+v", e)
	}
	m := append([]byte(nil), identifier(s.stateID).Serialize()...)
	m = append(m, 0, 0, 0, 0)
	for _, a := range []string{"192.0.2.1", "192.0.2.130"} {
		x := addressOf(netip.MustParseAddr(a))
		m = append(m, x[:]...)
	}
	m = binary.BigEndian.AppendUint16(m, 4500)
	m = binary.BigEndian.AppendUint16(m, 40000)
	e, ok = parseEvent(nl.XFRM_MSG_MAPPING, m)
	if !ok || e.kind != mappingChanged || e.source != netip.MustParseAddrPort("192.0.2.130:40000") || e.id != s.stateID {
		t.Errorf("%+v", e)
	}
	for _, b := range [][]byte{expire[:len(expire)-1], m[:len(m)-1], nil} {
		for _, kind := range []uint16{nl.XFRM_MSG_EXPIRE, nl.XFRM_MSG_MAPPING, nl.XFRM_MSG_NEWSA} {
			if e, ok := parseEvent(kind, b); ok && len(b) < mappingLength {
				t.Errorf("%+v from %d octets", e, len(b))
			}
		}
	}
}

// TestLayout holds what is sent against linux/xfrm.h.
func TestLayout(t *testing.T) {
	p := policy{policyKey: policyKey{dirOut, selector{src: netip.MustParsePrefix("10.0.0.0/8"), dst: netip.MustParsePrefix("::/0"), dport: 80, dportMask: 0xfff0}},
		src: netip.MustParseAddr("192.0.2.1"), dst: netip.MustParseAddr("192.0.2.2"), spi: 0x01020304, reqid: 7}
	tmpl := templateInfo(p)
	if len(tmpl) != 64 || !bytes.Equal(tmpl[:4], []byte{192, 0, 2, 2}) || !bytes.Equal(tmpl[16:20], []byte{1, 2, 3, 4}) || tmpl[20] != unix.IPPROTO_ESP {
		t.Errorf("template %x", tmpl)
	}
	sel := selectorInfo(p.sel)
	if b := sel.Serialize(); !bytes.Equal(b[32:40], []byte{0, 80, 0xff, 0xf0, 0, 0, 0, 0}) {
		t.Errorf("ports %x", b[32:40])
	}
	m := migrateInfo(migration{oldSrc: p.src, oldDst: p.dst, newSrc: netip.MustParseAddr("::1"), newDst: netip.MustParseAddr("::2"), reqid: 7})
	if len(m) != 76 || !bytes.Equal(m[:4], []byte{192, 0, 2, 2}) || m[47] != 2 || m[64] != unix.IPPROTO_ESP || m[65] != modeTunnel || nl.NativeEndian().Uint16(m[74:]) != unix.AF_INET6 {
		t.Errorf("migration %x", m)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, p := range append(suite.DefaultESPProposals(), suite.CompatESPProposals()...) {
		for _, sa := range combinations([]suite.ESPProposal{p}) {
			list, err := algorithmsOf(&sa)
			if err != nil || len(list) == 0 {
				t.Fatalf("%v %v: %v", sa.Encr, sa.Integ, err)
			}
			sum := 0
			for _, a := range list {
				if b := a.attribute().Serialize(); !bytes.Contains(b, []byte(a.name)) || !bytes.Contains(b, a.key) {
					t.Errorf("%s: %x", a.name, b)
				}
				sum += a.icv
			}
			if want := 8 * max(sa.Encr.ICVLen(), sa.Integ.TagLen()); sum != want {
				t.Errorf("%v %v: %d bits of ICV instead of %d", sa.Encr, sa.Integ, sum, want)
			}
		}
	}
}

func FuzzKernelMessages(f *testing.F) {
	s := sampleState(true)
	f.Add(removal(s, &replayState{window: 64}, usage{}, time.Unix(1, 0)))
	f.Add(append(stateInfo(s).Serialize(), nl.NewRtAttr(nl.XFRMA_REPLAY_ESN_VAL, replayAttribute(64, nil)).Serialize()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseState(b)
		_, _, _ = parseRemoval(b)
		_, _ = parseReplay(b)
		for _, kind := range []uint16{nl.XFRM_MSG_EXPIRE, nl.XFRM_MSG_MAPPING} {
			_, _ = parseEvent(kind, b)
		}
	})
}
