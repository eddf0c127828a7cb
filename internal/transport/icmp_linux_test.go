package transport

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestPathErrors sends to where nobody listens: the error is told with the pair it is
// about, and neither sending to others nor receiving suffers.
func TestPathErrors(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		told := make(chan PathError, 1024)
		rec := newRecorder()
		a := listen(t, Config{PathErrors: func(e PathError) { told <- e }}, newRecorder())
		b := listen(t, Config{}, rec)
		gone := listen(t, Config{}, newRecorder())
		closed, open := pairTo(a, gone, NATT, addr, addr), pairTo(a, b, NATT, addr, addr)
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := a.SendIKE(closed, ikeMessage(uint64(i)+1, 100)); err != nil {
				t.Fatalf("send %d to nobody: %v", i, err)
			}
			if err := a.SendIKE(open, ikeMessage(uint64(i)+1, 100)); err != nil {
				t.Fatalf("send %d beside: %v", i, err)
			}
			<-rec.ike
		}
		select {
		case e := <-told:
			if e.Kind != PortUnreachable || e.Pair.Remote != closed.Remote || e.Pair.Local != closed.Local || e.From != addr {
				t.Errorf("told %s, want %s", e, closed)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was told")
		}
		if n := a.Counters().SendErrors; n != 0 {
			t.Errorf("%d send errors", n)
		}
	})
}

// TestPathErrorsAreLimited: whoever forges errors does not keep anybody busy.
func TestPathErrorsAreLimited(t *testing.T) {
	told := make(chan PathError, 1024)
	a := listen(t, Config{PathErrors: func(e PathError) { told <- e }}, newRecorder())
	gone := listen(t, Config{}, newRecorder())
	pair := pairTo(a, gone, NATT, loopback4, loopback4)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 500 {
		if err := a.SendIKE(pair, ikeMessage(1, 100)); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	if n, most := len(told), pathErrorsBurst+int(took.Seconds()*pathErrorsPerSecond)+1; n > most {
		t.Errorf("%d told in %v, at most %d expected", n, took, most)
	}
}

// TestErrorsAreNotAskedFor: without somebody to tell, sockets are as before.
func TestErrorsAreNotAskedFor(t *testing.T) {
	a := listen(t, Config{}, newRecorder())
	for _, s := range a.sockets {
		_ = s.raw.Control(func(fd uintptr) {
			level, option := unix.IPPROTO_IP, unix.IP_RECVERR
			if s.ipv6 {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
			}
			if on, err := unix.GetsockoptInt(int(fd), level, option); err != nil || on != 0 {
				t.Errorf("%s: %d %v", s.file.Name(), on, err)
			}
		})
	}
}

// controlOf makes control data as the kernel does.
func controlOf(level, kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	n := unix.CmsgLen(0)
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[n-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[n-4:], uint32(kind))
	copy(b[n:], data)
	return b
}

func extended(errno unix.Errno, origin byte, info uint32) []byte {
	b := make([]byte, sizeofExtended+unix.SizeofSockaddrInet4)
	binary.NativeEndian.PutUint32(b, uint32(errno))
	b[4] = origin
	binary.NativeEndian.PutUint32(b[8:], info)
	binary.NativeEndian.PutUint16(b[sizeofExtended:], unix.AF_INET)
	copy(b[sizeofExtended+4:], []byte{192, 0, 2, 254})
	return b
}

func TestParsePathError(t *testing.T) {
	to := netip.MustParseAddrPort("203.0.113.10:4500")
	info := controlOf(unix.IPPROTO_IP, unix.IP_PKTINFO, []byte{3, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10})
	for _, tt := range []struct {
		name string
		data []byte
		want PathError
		ok   bool
	}{
		{"too big", extended(unix.EMSGSIZE, unix.SO_EE_ORIGIN_ICMP, 1400), PathError{Kind: TooBig, MTU: 1400}, true},
		{"filtered", extended(unix.EHOSTUNREACH, unix.SO_EE_ORIGIN_ICMP, 0), PathError{Kind: Unreachable}, true},
		{"refused", extended(unix.ECONNREFUSED, unix.SO_EE_ORIGIN_ICMP, 0), PathError{Kind: PortUnreachable}, true},
		{"of this machine", extended(unix.EMSGSIZE, unix.SO_EE_ORIGIN_LOCAL, 1500), PathError{}, false},
	} {
		control := append(controlOf(unix.IPPROTO_IP, unix.IP_RECVERR, tt.data), info...)
		got, ok := parsePathError(control, to)
		if ok != tt.ok {
			t.Errorf("%s: %v", tt.name, ok)
			continue
		}
		if !ok {
			continue
		}
		tt.want.From = netip.MustParseAddr("192.0.2.254")
		tt.want.Pair = locator.Pair{Local: netip.MustParseAddrPort("192.0.2.10:0"), Remote: to, Interface: 3}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		for n := range control {
			parsePathError(control[:n], to) // no panic, whatever is cut off
		}
	}
}
